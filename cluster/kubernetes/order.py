"""In which order objects are made, and taken away: what others need comes first, and goes last.

KubeRay ends a cluster with a job of its own where Redis keeps the head's state; its pod needs the account, the Secrets
and the policies, and the deletion waits for it: whoever deletes those first waits for five minutes, and in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from heliostat.cluster.kubernetes.build import Manifest

Object = TypeVar("Object")
ORDER = (
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "ResourceQuota",
    "LimitRange",
    "NetworkPolicy",
    "ServiceAccount",
    "Secret",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
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


def to_delete(objects: Iterable[Object], kind: Callable[[Object], str]) -> list[list[Object]]:
    """In the order in which they go: each group when the one before it is gone."""
    found = sorted(objects, key=lambda one: (-position(kind(one)), str(one)))
    first = [one for one in found if kind(one) in WORKLOADS]
    return [group for group in (first, [one for one in found if kind(one) not in WORKLOADS]) if group]
