"""Objects as one text of YAML, in an order in which they can be applied. The same objects give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from heliostat.cluster.kubernetes.build import Manifest

HEADER = "# Written by `heliostat render k8s --plain`: change the spec and render again.\n"
FIRST = (
    "Namespace", "CustomResourceDefinition", "PriorityClass", "ResourceQuota", "LimitRange", "NetworkPolicy",
    "ServiceAccount", "Secret", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap",
    "PersistentVolumeClaim", "Service",
)  # fmt: skip
"""Kinds that others stand on: what closes a namespace, who runs there, and what pods read."""
LAST = ("PodDisruptionBudget", "RayCluster", "RayService", "RayJob", "RayCronJob")
"""Kinds that make pods of all that is there by then."""
NUMBERS_OF_OTHERS = re.compile(r"[-+.]?\d|[yYnN]$")
"""Texts that YAML readers other than Python's may take for numbers or truth values, such as 1e3 and y (Go's does)."""


def plain(objects: Iterable[Manifest]) -> str:
    """One YAML document for each object."""
    return HEADER + "".join(f"---\n{dump(one)}" for one in in_order(objects))


def in_order(objects: Iterable[Manifest]) -> list[Manifest]:
    """The objects in an order in which they can be applied."""
    return sorted(objects, key=_place)


def dump(value: Any) -> str:
    """YAML with keys in their order, and texts of several lines as blocks."""
    return str(yaml.dump(value, Dumper=_Blocks, sort_keys=False, allow_unicode=True, width=110))


def _place(one: Manifest) -> tuple[int, str, str]:
    kind = one["kind"]
    order = FIRST.index(kind) if kind in FIRST else len(FIRST) + (LAST.index(kind) + 1 if kind in LAST else 0)
    return order, kind, one["metadata"]["name"]


class _Blocks(yaml.SafeDumper):
    """Writes a text of several lines as it is, not as a quoted one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if NUMBERS_OF_OTHERS.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Blocks.add_representer(str, _text)
