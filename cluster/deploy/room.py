"""Whether there is room: what a namespace's quotas leave, and what its nodes do."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.pods import Amounts, Pods, quantity, total


def over_quota(pods: Iterable[Pods], quotas: Iterable[Manifest]) -> list[str]:
    """A line for each quota that the pods would exceed."""
    wanted = list(pods)
    needed = {kind: total(wanted, kind) for kind in ("requests", "limits")}
    return [
        f"quota {quota['metadata']['name']}: {name} {_text(need)} needed, {_text(left)} left of {hard}"
        for quota in quotas
        for name, hard in (quota.get("status", {}).get("hard") or quota["spec"].get("hard") or {}).items()
        if (need := _needed(name, needed)) is not None
        and need > (left := quantity(hard) - quantity(quota.get("status", {}).get("used", {}).get(name, 0)))
    ]


def without_node(pods: Iterable[Pods], nodes: Iterable[Manifest], running: Iterable[Manifest]) -> list[str]:
    """Roles of pods that no node has room for now, largest first, each put where most is left.

    A look ahead, no scheduler: taints, affinities and spreads are left out, and nodes may be added.
    """
    free = {node["metadata"]["name"]: _free(node) for node in nodes if not node.get("spec", {}).get("unschedulable")}
    for pod in running:
        place, phase = pod.get("spec", {}).get("nodeName"), pod.get("status", {}).get("phase")
        if place in free and phase not in ("Succeeded", "Failed"):
            _take(free[place], Pods("", 1, pod["spec"], {}).amounts("requests"))
    units = [(one.role, one.amounts("requests")) for one in pods for _ in range(one.count)]
    lacking = []
    for role, need in sorted(units, key=lambda unit: sorted(unit[1].items()), reverse=True):
        fitting = [left for left in free.values() if all(left.get(name, 0) >= value for name, value in need.items())]
        if fitting:
            _take(max(fitting, key=lambda left: left.get("cpu", Decimal(0))), need)
        else:
            lacking.append(f"{role} ({', '.join(f'{name} {_text(value)}' for name, value in sorted(need.items()))})")
    return list(dict.fromkeys(lacking))


def _needed(name: str, needed: dict[str, Amounts]) -> Decimal | None:
    """What a quota's key counts, of what is needed."""
    kind, _, resource = name.partition(".")
    if kind in needed:
        return needed[kind].get(resource)
    return needed["requests"].get("pods" if name == "count/pods" else name)


def _free(node: Manifest) -> Amounts:
    return {name: quantity(value) for name, value in node.get("status", {}).get("allocatable", {}).items()}


def _take(left: Amounts, need: Amounts) -> None:
    for name, value in need.items():
        left[name] = left.get(name, Decimal(0)) - value


def _text(amount: Decimal) -> str:
    if amount >= 2**20 and amount % 2**20 == 0:
        return f"{amount / 2**30:g}Gi"
    return f"{amount.normalize():f}"
