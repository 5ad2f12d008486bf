"""What KubeRay refuses of a Ray cluster, standing alone or inside a RayJob or RayService."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heliostat.cluster.kubernetes.kuberay.rule import Refusal, at, below, name_of, older, variables

NAME_CHARACTERS = 53
GATES = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
"""Fields whose feature gate is off in a stock operator, which refuses them."""
SIZES = ("num-cpus", "num-gpus", "memory", "resources")
V2 = "RAY_enable_autoscaler_v2"
_ON = ("1", "true")
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


def of_a_cluster(one: Any) -> Iterator[Refusal]:
    """Of a RayCluster."""
    yield from name_of(one, NAME_CHARACTERS)
    kind = at(one, "spec", "upgradeStrategy", "type")
    if kind not in (None, "Recreate", "None"):
        yield Refusal("spec.upgradeStrategy.type", kind, "Recreate or None is allowed")
    for found in of_a_cluster_spec(at(one, "spec"), at(one, "metadata", "annotations") or {}):
        yield found.under("spec")


def of_a_child_spec(spec: Any, annotations: Mapping[str, Any], owner: str) -> Iterator[Refusal]:
    """Of the cluster that a RayJob or RayService makes: with all rules of a cluster."""
    if at(spec, "authOptions", "enableK8sTokenAuth"):
        yield Refusal("authOptions.enableK8sTokenAuth", True, f"no {owner} takes it: leave it out")
    if (kind := at(spec, "upgradeStrategy", "type")) is not None:
        yield Refusal("upgradeStrategy.type", kind, f"a cluster of a {owner} takes none: leave it out")
    yield from of_a_cluster_spec(spec, annotations)


def of_a_cluster_spec(spec: Any, annotations: Mapping[str, Any]) -> Iterator[Refusal]:
    """Of a RayClusterSpec, by paths below it."""
    for path, group in _groups(spec):
        if not at(group, "template", "spec", "containers"):
            yield Refusal(f"{path}.template.spec.containers", None, "at least one container is needed")
        for found in (*_start_params(group), *_labels(group)):
            yield found.under(path)
    for path, group in _groups(spec)[1:]:
        for found in (*_bounds(group, _scales(spec)), *_only_v2(group, spec)):
            yield found.under(path)
    yield from _fault_tolerance(spec, annotations)
    yield from _autoscaler(spec)
    yield from _authentication(spec)
    for key, gate in GATES.items():
        if at(spec, key) is not None:
            yield Refusal(key, at(spec, key), f"needs the operator's feature gate {gate}, which is off: leave it out")


def _groups(spec: Any) -> list[tuple[str, Any]]:
    """The head's group, then those of workers, each with its path."""
    workers = at(spec, "workerGroupSpecs") or []
    return [
        ("headGroupSpec", at(spec, "headGroupSpec")),
        *((f"workerGroupSpecs[{place}]", group) for place, group in enumerate(workers)),
    ]


def _scales(spec: Any) -> bool:
    return at(spec, "enableInTreeAutoscaling") is True


def _start_params(group: Any) -> Iterator[Refusal]:
    params = at(group, "rayStartParams") or {}
    both = [key for key in SIZES if params.get(key)]
    if both and at(group, "resources"):
        yield Refusal(f"rayStartParams.{both[0]}", params[both[0]], "sizes stand there or in `resources` beside it")
    if "labels" in params:
        yield Refusal("rayStartParams.labels", params["labels"], "labels stand in the group's own `labels`")


def _labels(group: Any) -> Iterator[Refusal]:
    for key, value in (at(group, "labels") or {}).items():
        prefix, _, name = key.rpartition("/")
        is_key = re.fullmatch(_LABEL, name) and (not prefix or (len(prefix) < 254 and re.fullmatch(_PREFIX, prefix)))
        if not is_key or ("/" in key and not prefix):
            yield Refusal("labels", key, "the name of a label of Kubernetes is allowed, PREFIX/NAME or NAME")
        if value and not re.fullmatch(_LABEL, str(value)):
            yield Refusal(f"labels.{key}", value, "63 letters, digits, dashes, dots and underscores are allowed")


def _bounds(group: Any, scales: bool) -> Iterator[Refusal]:
    for key in ("minReplicas", "maxReplicas"):
        if not scales and at(group, key) is None:
            yield Refusal(key, None, "both bounds are needed where enableInTreeAutoscaling is not true")
        yield from below(group, key, 0)
    least, most = at(group, "minReplicas"), at(group, "maxReplicas")
    if least is not None and most is not None and least > most:
        yield Refusal("minReplicas", least, f"at most maxReplicas, {most}, is allowed")
    if scales and at(group, "suspend"):
        yield Refusal("suspend", True, "false is allowed where enableInTreeAutoscaling is true")


def _only_v2(group: Any, spec: Any) -> Iterator[Refusal]:
    """Fields of a worker group that only autoscaler v2 knows."""
    has_v2 = _is_v2(spec) or _head(spec).get(V2) in _ON
    yield from below(group, "idleTimeoutSeconds", 0)
    for key in ("idleTimeoutSeconds", "priority"):
        value = at(group, key)
        if (value is not None if key == "idleTimeoutSeconds" else value) and not has_v2:
            yield Refusal(key, value, "needs autoscalerOptions.version v2")
    if at(group, "priority") and older(str(at(spec, "rayVersion") or ""), (2, 56)) is not False:
        yield Refusal("priority", at(group, "priority"), "needs rayVersion 2.56.0 or later")


def _head(spec: Any) -> dict[str, Any]:
    """Environment of the head's first container."""
    containers = at(spec, "headGroupSpec", "template", "spec", "containers") or [{}]
    return variables(containers[0])


def _is_v2(spec: Any) -> bool:
    return bool(at(spec, "autoscalerOptions", "version") == "v2")


def _fault_tolerance(spec: Any, annotations: Mapping[str, Any]) -> Iterator[Refusal]:
    options, head = at(spec, "gcsFaultToleranceOptions"), _head(spec)
    env = "headGroupSpec.template.spec.containers[0].env"
    params = at(spec, "headGroupSpec", "rayStartParams") or {}
    if params.get("redis-username"):
        yield Refusal("headGroupSpec.rayStartParams.redis-username", params["redis-username"], _INSTEAD)
    if "REDIS_USERNAME" in head:
        yield Refusal(f"{env}.REDIS_USERNAME", head["REDIS_USERNAME"], _INSTEAD)
    is_on = options is not None or str(annotations.get("ray.io/ft-enabled", "")).lower() == "true"
    if "RAY_REDIS_ADDRESS" in head and (options is not None or not is_on):
        yield Refusal(f"{env}.RAY_REDIS_ADDRESS", head["RAY_REDIS_ADDRESS"], _INSTEAD)
    if options is None:
        return
    for key in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if annotations.get(key):
            yield Refusal("gcsFaultToleranceOptions", options, f"no annotation {key} beside it is allowed")
    if params.get("redis-password"):
        yield Refusal("headGroupSpec.rayStartParams.redis-password", "…", _INSTEAD)
    if "REDIS_PASSWORD" in head:
        yield Refusal(f"{env}.REDIS_PASSWORD", "…", _INSTEAD)
    if at(options, "backend") == "rocksdb":
        yield Refusal("gcsFaultToleranceOptions.backend", "rocksdb", "redis is allowed: the gate of the other is off")
    elif at(options, "storage") is not None:
        yield Refusal("gcsFaultToleranceOptions.storage", at(options, "storage"), "backend redis takes none")


_INSTEAD = "gcsFaultToleranceOptions has a field for it"


def _autoscaler(spec: Any) -> Iterator[Refusal]:
    options, head = at(spec, "autoscalerOptions"), _head(spec)
    for found in below(options, "idleTimeoutSeconds", 0):
        yield found.under("autoscalerOptions")
    if "KUBERAY_GEN_AUTOSCALER_START_CMD" in variables(options):
        yield Refusal("autoscalerOptions.env", "KUBERAY_GEN_AUTOSCALER_START_CMD", "that variable is KubeRay's own")
    env = f"headGroupSpec.template.spec.containers[0].env.{V2}"
    if not _scales(spec):
        if head.get(V2) in _ON:
            yield Refusal(env, head[V2], "needs enableInTreeAutoscaling true")
        return
    if V2 in head and at(options, "version") is not None:
        yield Refusal(env, head[V2], "autoscalerOptions.version says it already: leave it out")
    for path, group in _groups(spec) if _is_v2(spec) else ():
        policy = at(group, "template", "spec", "restartPolicy")
        if policy not in (None, "", "Never"):
            yield Refusal(f"{path}.template.spec.restartPolicy", policy, "Never is allowed with autoscaler v2")


def _authentication(spec: Any) -> Iterator[Refusal]:
    options, version = at(spec, "authOptions"), at(spec, "rayVersion")
    kubernetes = at(options, "enableK8sTokenAuth")
    if at(options, "mode") != "token":
        if kubernetes:
            yield Refusal("authOptions.enableK8sTokenAuth", kubernetes, "needs authOptions.mode token")
        return
    least = (2, 55) if kubernetes else (2, 52)
    if older(str(version or ""), least) is not False:
        yield Refusal("rayVersion", version, f"authOptions needs {least[0]}.{least[1]}.0 or later")
    if kubernetes and at(options, "secretName"):
        yield Refusal("authOptions.secretName", at(options, "secretName"), "enableK8sTokenAuth beside it takes none")
