"""What KubeRay makes of a change, and what it takes and makes nothing of; pure.

A RayService gets a new cluster when the specification of its cluster changes, but for the fields in `UNHASHED` and
`POD`: a change of these alone does nothing to the cluster that runs. With `upgradeStrategy` `None` no change does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.kuberay.services import INCREMENTAL
from heliostat.cluster.kubernetes.pods import ray_cluster

LIMITS = ("minReplicas", "maxReplicas")
"""What may be changed on the cluster that runs."""
UNHASHED = ("replicas", *LIMITS, "scaleStrategy")
"""Of a worker group; with tolerations and scheduling gates of all pods."""
POD = ("tolerations", "schedulingGates")
NEW_CLUSTER = ("NewCluster", INCREMENTAL)


def needs_second_cluster(before: Manifest, after: Manifest) -> bool:
    """Whether the change of a RayService brings up a cluster beside the one that runs."""
    return _hashed(before) != _hashed(after) and _strategy(after) in NEW_CLUSTER


def new_limits(before: Manifest, after: Manifest) -> dict[str, dict[str, int]]:
    """Worker group -> limits that have changed, where no new cluster takes them."""
    if _hashed(before) != _hashed(after):
        return {}
    old = {group["groupName"]: group for group in ray_cluster(before).get("workerGroupSpecs", [])}
    found = {
        group["groupName"]: {key: group[key] for key in LIMITS if group.get(key) != old[group["groupName"]].get(key)}
        for group in ray_cluster(after).get("workerGroupSpecs", [])
    }
    return {name: limits for name, limits in found.items() if limits}


def without_effect(before: Manifest, after: Manifest) -> list[str]:
    """Fields that were changed and that KubeRay makes nothing of, with what helps."""
    return list(_without_effect(before, after))


def _without_effect(before: Manifest, after: Manifest) -> Iterator[str]:
    name = f"{after['kind']} {after['metadata']['name']}"
    if after["kind"] == "RayCluster":
        recreates = after["spec"].get("upgradeStrategy", {}).get("type") == "Recreate"
        if not recreates and _templates(before["spec"]) != _templates(after["spec"]):
            yield f"{name}: pods that run keep their template; delete the cluster and deploy it again"
    if after["kind"] != "RayService":
        return
    if _hashed(before) != _hashed(after):
        if _strategy(after) not in NEW_CLUSTER:
            yield f"{name}: rayClusterConfig has changed, and upgradeStrategy {_strategy(after)} changes no pod;" + (
                f" heliostat destroy {after['metadata']['name']}, then deploy it again"
            )
        return
    for key in POD:
        if _pods(before, key) != _pods(after, key):
            yield f"{name}: {key} have changed, which no pod that runs is given; the next new cluster takes them"


def _strategy(service: Manifest) -> str:
    return str(service["spec"].get("upgradeStrategy", {}).get("type") or "NewCluster")


def _hashed(service: Manifest) -> dict[str, Any]:
    """What KubeRay compares."""
    config = copy.deepcopy(ray_cluster(service))
    for key in ("upgradeStrategy", "suspend"):
        config.pop(key, None)
    for group in [config["headGroupSpec"], *config.get("workerGroupSpecs", [])]:
        for key in UNHASHED:
            group.pop(key, None)
        for key in POD:
            group["template"]["spec"].pop(key, None)
    return config


def _templates(cluster: dict[str, Any]) -> list[Any]:
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", []))]


def _pods(service: Manifest, key: str) -> list[Any]:
    return [template["spec"].get(key) for template in _templates(ray_cluster(service))]
