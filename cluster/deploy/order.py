"""In which order objects are made, and taken away: what others need comes first, and goes last.

KubeRay ends a cluster with a job of its own where Redis keeps the head's state; its pod needs the account, the Secrets
and the policies, and the deletion waits for it: whoever deletes those first waits for five minutes, and in vain.
"""

from __future__ import annotations

from collections.abc import Iterable

from heliostat.cluster.deploy.api import Reference
from heliostat.cluster.kubernetes.build import Manifest

ORDER = (
    "Namespace",
    "ResourceQuota",
    "LimitRange",
    "ServiceAccount",
    "NetworkPolicy",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Service",
    "StatefulSet",
    "Deployment",
    "Job",
    "PodDisruptionBudget",
    "PodMonitor",
    "PrometheusRule",
    "RayCluster",
    "RayCronJob",
    "CronJob",
    "RayJob",
    "RayService",
)
"""Kinds that are not here come before KubeRay's."""
LAST = ORDER.index("RayCluster")
WORKLOADS = frozenset(ORDER[LAST:])
"""What runs, and goes first when all is taken away."""
KEPT = ("PersistentVolumeClaim",)
"""What holds data."""


def position(kind: str) -> int:
    """Place of a kind; a smaller one is made earlier."""
    return ORDER.index(kind) if kind in ORDER else LAST


def to_apply(manifests: Iterable[Manifest]) -> list[Manifest]:
    """In the order in which they are made."""
    return sorted(manifests, key=lambda one: (position(one["kind"]), one["kind"], one["metadata"]["name"]))


def to_delete(references: Iterable[Reference]) -> list[list[Reference]]:
    """In the order in which they go: each group when the one before it is gone."""
    found = sorted(references, key=lambda one: (-position(one.kind), one.kind, one.name))
    first = [one for one in found if one.kind in WORKLOADS]
    return [group for group in (first, [one for one in found if one.kind not in WORKLOADS]) if group]
