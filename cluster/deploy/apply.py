"""Applies objects in their order, and makes changes reach the clusters that run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from heliostat.cluster.deploy import changes
from heliostat.cluster.deploy.api import MANAGER, Api, Reference, RefusedError
from heliostat.cluster.deploy.checks import forced
from heliostat.cluster.deploy.patience import persistently
from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.order import to_apply
from heliostat.infra.errors import KubernetesError

AWAY_SECONDS = 60.0
"""How long the server may not take an object because it is away."""


@dataclass
class Applied:
    """What applying did."""

    created: list[Reference] = field(default_factory=list)
    changed: list[Reference] = field(default_factory=list)
    unchanged: list[Reference] = field(default_factory=list)
    without_effect: list[str] = field(default_factory=list)
    """Changes that KubeRay has taken and makes nothing of."""


def apply(api: Api, manifests: Iterable[Manifest], done: Applied) -> None:
    """Applies all; `done` is filled in as it goes, so that it is true where this fails.

    A RayJob that is there is left as it is: KubeRay runs it once, and a queue has written into it.
    Raises RefusedError for the first object that is refused; KubernetesError if a cluster does not take new limits.
    """
    for manifest in to_apply(manifests):
        reference = Reference.of(manifest)
        before = api.get(reference)
        if before is not None and reference.kind == "RayJob":
            done.unchanged.append(reference)
            continue
        after = _applied(api, manifest)
        if before is None:
            done.created.append(reference)
            continue
        (done.unchanged if _meant(before) == _meant(after) else done.changed).append(reference)
        done.without_effect += changes.without_effect(before, after)
        if reference.kind == "RayService":
            _limit(api, before, after)


def _applied(api: Api, manifest: Manifest) -> Manifest:
    try:
        return persistently(lambda: api.apply(manifest, force=forced(manifest)), time.monotonic() + AWAY_SECONDS)
    except RefusedError as error:
        if error.reason != "Conflict":
            raise RefusedError(f"{Reference.of(manifest)}: {error}", error.status, error.reason) from None
        raise RefusedError(
            f"{Reference.of(manifest)}: others write fields of it: {error}; to take them over: kubectl apply"
            f" --server-side --force-conflicts --field-manager {MANAGER} -k DIR",
            error.status,
            error.reason,
        ) from None


def _meant(found: Manifest) -> Manifest:
    """The object without what changes while nobody changes it."""
    kept = ("annotations", "finalizers", "labels", "name", "ownerReferences")
    meta = {key: value for key, value in found["metadata"].items() if key in kept}
    return {**{key: value for key, value in found.items() if key != "status"}, "metadata": meta}


def _limit(api: Api, before: Manifest, after: Manifest) -> None:
    """Gives new limits to the clusters of an endpoint, which KubeRay does not, and reads them back."""
    limits = changes.new_limits(before, after)
    status = after.get("status", {})
    names = [(status.get(key) or {}).get("rayClusterName") for key in ("activeServiceStatus", "pendingServiceStatus")]
    for name in filter(None, names if limits else ()):
        child = Reference(after["apiVersion"], "RayCluster", name)
        if (live := api.get(child)) is not None:
            _check_limits(child, api.patch(child, _operations(live, limits)), limits)


def _check_limits(child: Reference, found: Manifest, limits: dict[str, dict[str, int]]) -> None:
    groups = {group["groupName"]: group for group in found["spec"]["workerGroupSpecs"]}
    for name, values in limits.items():
        if any(groups[name].get(key) != value for key, value in values.items()):
            raise KubernetesError(f"{child}: {name} has not taken {values}")


def _operations(cluster: Manifest, limits: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """A JSON patch, refused if the groups have changed places since they were read."""
    operations: list[dict[str, Any]] = []
    for index, group in enumerate(cluster["spec"]["workerGroupSpecs"]):
        place = f"/spec/workerGroupSpecs/{index}"
        if values := limits.get(group["groupName"]):
            operations.append({"op": "test", "path": f"{place}/groupName", "value": group["groupName"]})
            operations += [{"op": "add", "path": f"{place}/{key}", "value": value} for key, value in values.items()]
    return operations
