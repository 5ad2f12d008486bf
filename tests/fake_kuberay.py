"""What KubeRay's operator does to objects on a fake API server, as it was seen on a real one."""

from __future__ import annotations

import copy
from typing import Any

from tests.fake_kubernetes import FakeKubernetes, Manifest

FINALIZER = "ray.io/operator"
MANAGER = "kuberay-operator"
IGNORED = ("replicas", "minReplicas", "maxReplicas")


class FakeKubeRay:
    """Looks at each change of KubeRay's kinds, writes what it owns, and lets clusters and jobs come up at once.

    `applications` are the states that Serve gives for endpoints; `trouble` keeps clusters from coming up.
    """

    def __init__(self, kubernetes: FakeKubernetes) -> None:
        self.kubernetes = kubernetes
        self.is_up = True
        self.applications: dict[str, dict[str, str]] = {}
        """Name -> status and message; RUNNING where left out."""
        self.trouble: list[dict[str, str]] = []
        """Conditions of clusters, over those of one that is well."""
        self.job: dict[str, Any] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
        self.holds_deletion = False
        """Whether what must run before a deletion, such as the clean-up of Redis, does not end."""
        kubernetes.reactions.append(self._look)

    def _look(self, found: Manifest) -> None:
        if not self.is_up or found["kind"] not in ("RayCluster", "RayJob", "RayService"):
            return
        name = found["metadata"]["name"]
        live = self.kubernetes.find(found["kind"], name)
        if live is None:
            return
        if live["metadata"].get("deletionTimestamp"):
            self._end(live)
        elif (wanted := self._written(live)) != live:
            self.kubernetes.write(wanted, MANAGER)

    def _end(self, live: Manifest) -> None:
        if not self.holds_deletion:
            for child in self.kubernetes.all_of("RayCluster"):
                if {"name": live["metadata"]["name"]} in child["metadata"].get("ownerReferences", []):
                    self.kubernetes.remove("RayCluster", child["metadata"]["name"])
            self.kubernetes.remove(live["kind"], live["metadata"]["name"])

    def _written(self, live: Manifest) -> Manifest:
        wanted = copy.deepcopy(live)
        meta = wanted["metadata"]
        if wanted["kind"] != "RayCluster":
            meta["finalizers"] = [FINALIZER]
        for group in _groups(wanted):
            group.setdefault("scaleStrategy", {})
            _canonical(group)
        # Writing the specification anew raises the generation, which the real one then observes.
        grown = wanted["spec"] != live["spec"]
        status: dict[str, Any] = {"observedGeneration": meta["generation"] + grown}
        if wanted["kind"] == "RayService":
            status |= self._served(wanted)
        elif wanted["kind"] == "RayJob":
            status |= self.job
        else:
            least = sum(group.get("minReplicas", 0) for group in _groups(wanted))
            status |= {"readyWorkerReplicas": least, "conditions": self._conditions()}
        wanted["status"] = status
        return wanted

    def _served(self, service: Manifest) -> dict[str, Any]:
        name = service["metadata"]["name"]
        cluster = f"{name}-abcde"
        config = copy.deepcopy(service["spec"]["rayClusterConfig"])
        live = self.kubernetes.find("RayCluster", cluster)
        if live is None:
            owner = {"ownerReferences": [{"name": name}], "name": cluster}
            child = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": owner, "spec": config}
            self.kubernetes.write(child, MANAGER)
        applications = {name: self.applications.get(name, {"status": "RUNNING"})}
        return {"activeServiceStatus": {"rayClusterName": cluster, "applicationStatuses": applications}}

    def _conditions(self) -> list[dict[str, str]]:
        kinds = {one["type"] for one in self.trouble}
        well = [{"type": "HeadPodReady", "status": "True"}, {"type": "RayClusterProvisioned", "status": "True"}]
        return [*(one for one in well if one["type"] not in kinds), *self.trouble]


def _groups(found: Manifest) -> list[dict[str, Any]]:
    spec = found["spec"]
    spec = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    return list(spec.get("workerGroupSpecs", []))


def _canonical(value: Any) -> None:
    """Quantities as Go writes them back: always text."""
    if isinstance(value, list):
        for one in value:
            _canonical(one)
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        if key in ("requests", "limits"):
            value[key] = {name: str(amount) for name, amount in part.items()}
        else:
            _canonical(part)
