"""The pods that objects ask for, and what each of them needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from heliostat.cluster.kubernetes.build import Manifest

CLUSTERS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
"""KubeRay's kinds, and where in their spec the Ray cluster is described."""
Amounts = dict[str, Decimal]
"""Resource -> amount: CPUs, bytes, devices."""


@dataclass(frozen=True)
class Pods:
    """Pods of one template."""

    role: str
    """`head`, the name of a worker group, `submitter`, or the kind of a plain workload."""
    count: int
    """At least."""
    spec: dict[str, Any]
    sidecar: dict[str, Any]
    """Resources of the container that KubeRay adds, as `autoscalerOptions` gives them."""

    def amounts(self, kind: str) -> Amounts:
        """`requests` or `limits` of one pod; what is limited and not requested counts as requested."""
        containers = [one.get("resources", {}) for one in self.spec["containers"]]
        total: Amounts = {}
        for resources in [*containers, self.sidecar]:
            values = {**resources.get("limits", {}), **resources.get("requests", {})} if kind == "requests" else {}
            for name, value in (values or resources.get(kind, {})).items():
                total[name] = total.get(name, Decimal(0)) + quantity(value)
        return total


def of(manifest: Manifest) -> Iterator[Pods]:
    """The pods of an object, or none."""
    spec = manifest.get("spec", {})
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        yield Pods(manifest["kind"], spec.get("replicas", 1), spec["template"]["spec"], {})
    if manifest["kind"] not in CLUSTERS:
        return
    if submitter := spec.get("submitterPodTemplate"):
        yield Pods("submitter", 1, submitter["spec"], {})
    cluster = ray_cluster(manifest)
    scaler = cluster.get("autoscalerOptions", {}).get("resources", {}) if cluster.get("enableInTreeAutoscaling") else {}
    yield Pods("head", 1, cluster["headGroupSpec"]["template"]["spec"], scaler)
    for group in cluster.get("workerGroupSpecs", []):
        least = max(int(group.get("minReplicas", 0)), 0 if scaler else int(group.get("replicas", 0)))
        yield Pods(group["groupName"], least * int(group.get("numOfHosts", 1)), group["template"]["spec"], {})


def ray_cluster(manifest: Manifest) -> dict[str, Any]:
    """The spec of the Ray cluster in an object of KubeRay's."""
    spec = manifest["spec"]
    for key in CLUSTERS[manifest["kind"]]:
        spec = spec[key]
    return dict(spec)


def total(pods: Iterable[Pods], kind: str) -> Amounts:
    """What all of them need together; `pods` is their number."""
    found: Amounts = {"pods": Decimal(0)}
    for one in pods:
        found["pods"] += one.count
        for name, amount in one.amounts(kind).items():
            found[name] = found.get(name, Decimal(0)) + amount * one.count
    return found


_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(text: str | int) -> Decimal:
    """A quantity of Kubernetes, such as `100m` or `6Gi`, as a number."""
    value = str(text)
    for suffix, power in _BINARY.items():
        if value.endswith(suffix):
            return Decimal(value[: -len(suffix)]) * Decimal(1024) ** power
    if value[-1:] in _DECIMAL:
        return Decimal(value[:-1]).scaleb(_DECIMAL[value[-1]])
    return Decimal(value)
