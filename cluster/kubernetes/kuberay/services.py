"""What KubeRay refuses of a RayService."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from heliostat.cluster.kubernetes.kuberay.clusters import of_a_child_spec
from heliostat.cluster.kubernetes.kuberay.rule import Refusal, at, below, name_of

NAME_CHARACTERS = 47
"""The cluster's name has six more."""
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
TIMEOUT = "ray.io/initializing-timeout"
_DURATION = r"\+?((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|\+?\d+"


def of_a_service(one: Any) -> Iterator[Refusal]:
    """Of a RayService."""
    yield from name_of(one, NAME_CHARACTERS)
    annotations = at(one, "metadata", "annotations") or {}
    timeout = str(annotations.get(TIMEOUT) or "")
    if timeout and not (re.fullmatch(_DURATION, timeout) and re.search("[1-9]", timeout)):
        yield Refusal(f"metadata.annotations.{TIMEOUT}", timeout, "a duration such as 30m, or seconds, is allowed")
    spec = at(one, "spec")
    for found in of_a_child_spec(at(spec, "rayClusterConfig"), annotations, "RayService"):
        yield found.under("spec.rayClusterConfig")
    if name := at(spec, "rayClusterConfig", "headGroupSpec", "headService", "metadata", "name"):
        yield Refusal("spec.rayClusterConfig.headGroupSpec.headService.metadata.name", name, "KubeRay names it itself")
    for found in (*below(spec, "rayClusterDeletionDelaySeconds", 0), *_upgrades(spec)):
        yield found.under("spec")


def _upgrades(spec: Any) -> Iterator[Refusal]:
    kind = at(spec, "upgradeStrategy", "type")
    if kind not in (None, "None", "NewCluster", INCREMENTAL):
        yield Refusal("upgradeStrategy.type", kind, f"NewCluster, {INCREMENTAL} or None is allowed")
    if kind != INCREMENTAL:
        return
    if not at(spec, "rayClusterConfig", "enableInTreeAutoscaling"):
        yield Refusal("upgradeStrategy.type", kind, "needs rayClusterConfig.enableInTreeAutoscaling true")
    options, path = at(spec, "upgradeStrategy", "clusterUpgradeOptions"), "upgradeStrategy.clusterUpgradeOptions"
    if options is None:
        yield Refusal(path, None, f"{INCREMENTAL} needs it")
        return
    for found in _steps(options):
        yield found.under(path)


def _steps(options: Any) -> Iterator[Refusal]:
    surge, step, interval = (at(options, key) for key in ("maxSurgePercent", "stepSizePercent", "intervalSeconds"))
    surge = 100 if surge is None else surge  # the server's default
    if not 0 <= surge <= 100:
        yield Refusal("maxSurgePercent", surge, "0 to 100 is allowed")
    if step is None or not 0 <= step <= 100:
        yield Refusal("stepSizePercent", step, "0 to 100 is allowed")
    elif step > surge:
        yield Refusal("stepSizePercent", step, f"at most maxSurgePercent, {surge}, is allowed")
    if interval is None or interval <= 0:
        yield Refusal("intervalSeconds", interval, "1 or more is allowed")
    if not at(options, "gatewayClassName"):
        yield Refusal("gatewayClassName", at(options, "gatewayClassName"), "the name of a GatewayClass is needed")
