"""What KubeRay's operator does to objects on a fake API server, as it was seen on a real one."""

from __future__ import annotations

import copy
from typing import Any

from tests.fake_kubernetes import FakeKubernetes, Manifest

FINALIZER = "ray.io/operator"
MANAGER = "kuberay-operator"
IGNORED = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
LONGEST = {"RayJob": 47, "RayService": 47}
LONG = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "the name is too long"}


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
        self._namespace = "models"
        kubernetes.reactions.append(self._look)

    def _look(self, found: Manifest) -> None:
        if not self.is_up or found["kind"] not in ("RayCluster", "RayJob", "RayService"):
            return
        place = found["metadata"].get("namespace", "models")
        live = self.kubernetes.find(found["kind"], found["metadata"]["name"], place)
        if live is None:
            return
        self._namespace = place
        if live["metadata"].get("deletionTimestamp"):
            self._end(live)
        elif (wanted := self._written(live)) != live:
            self._write(wanted)

    def _end(self, live: Manifest) -> None:
        if not self.holds_deletion:
            for child in self._all("RayCluster"):
                if _is_owned(child, live["metadata"]["name"]):
                    self._end_cluster(child)
            if live["kind"] == "RayCluster":
                self._end_cluster(live)
            self.kubernetes.remove(live["kind"], live["metadata"]["name"], self._namespace)

    def _end_cluster(self, cluster: Manifest) -> None:
        name = cluster["metadata"]["name"]
        for pod in self._all("Pod"):
            if pod["metadata"].get("labels", {}).get("ray.io/cluster") == name:
                self.kubernetes.remove("Pod", pod["metadata"]["name"], self._namespace)
        self.kubernetes.remove("RayCluster", name, self._namespace)

    def _all(self, kind: str) -> list[Manifest]:
        found = self.kubernetes.all_of(kind)
        return [one for one in found if one["metadata"].get("namespace", "") == self._namespace]

    def _write(self, manifest: Manifest) -> None:
        self.kubernetes.write(manifest, MANAGER, self._namespace)

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
        if len(meta["name"]) > LONGEST.get(wanted["kind"], 53):
            status |= (
                {"jobDeploymentStatus": "ValidationFailed"} if wanted["kind"] == "RayJob" else {"conditions": [LONG]}
            )
        elif wanted["kind"] == "RayService":
            status |= self._served(wanted)
        elif wanted["kind"] == "RayJob":
            status |= self.job
            self._child(meta["name"], wanted["spec"]["rayClusterSpec"])
        else:
            status |= self._clustered(wanted)
        wanted["status"] = status
        return wanted

    def _served(self, service: Manifest) -> dict[str, Any]:
        name = service["metadata"]["name"]
        cluster = self._child(name, service["spec"]["rayClusterConfig"])
        applications = {name: self.applications.get(name, {"status": "RUNNING"})}
        return {"activeServiceStatus": {"rayClusterName": cluster, "applicationStatuses": applications}}

    def _child(self, name: str, config: Manifest) -> str:
        """The cluster of an object; a new one where what the real operator hashes has changed."""
        mine = [one for one in self._all("RayCluster") if _is_owned(one, name)]
        same = [one["metadata"]["name"] for one in mine if _hashed(one["spec"]) == _hashed(config)]
        if same:
            return str(same[-1])
        meta = {"ownerReferences": [{"name": name}], "name": f"{name}-{'abcdefgh'[len(mine)]}bcde"}
        here, spec = self._namespace, copy.deepcopy(config)
        self._write({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec})
        self._namespace = here
        return str(meta["name"])

    def _clustered(self, cluster: Manifest) -> dict[str, Any]:
        if any(one["spec"]["hard"].get("pods") == "0" for one in self._all("ResourceQuota")):
            refused = {"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota: team"}
            return {"conditions": [*self._conditions(), refused]}
        least = {group["groupName"]: group.get("minReplicas", 0) for group in _groups(cluster)}
        for group, count in {"head": 1, **least}.items():
            for index in range(count):
                self._pod(cluster["metadata"]["name"], group, index)
        return {"readyWorkerReplicas": sum(least.values()), "conditions": self._conditions()}

    def _pod(self, cluster: str, group: str, index: int) -> None:
        name, kind = f"{cluster}-{group}-{index}", "head" if group == "head" else "worker"
        meta = {"name": name, "labels": {"ray.io/cluster": cluster, "ray.io/node-type": kind}}
        if self.kubernetes.find("Pod", name, self._namespace) is None:
            status = {"phase": "Pending"}
            self._write({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": status})

    def _conditions(self) -> list[dict[str, str]]:
        kinds = {one["type"] for one in self.trouble}
        well = [{"type": "HeadPodReady", "status": "True"}, {"type": "RayClusterProvisioned", "status": "True"}]
        return [*(one for one in well if one["type"] not in kinds), *self.trouble]


def _is_owned(cluster: Manifest, name: str) -> bool:
    return {"name": name} in cluster["metadata"].get("ownerReferences", [])


def _hashed(config: dict[str, Any]) -> dict[str, Any]:
    groups = [{key: value for key, value in one.items() if key not in IGNORED} for one in config["workerGroupSpecs"]]
    return {**config, "workerGroupSpecs": groups}


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
