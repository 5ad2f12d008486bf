"""Whether training fits into the memory of an overlay's pods, by the plan of the spec; asks no network."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING

from heliostat.cluster.kubernetes.overlays import OVERLAYS
from heliostat.infra.accelerators import ACCELERATORS
from heliostat.infra.errors import ConfigError
from heliostat.infra.installed import TRAINING
from heliostat.infra.memory import GIB
from heliostat.operations.plan import footprint_of, on_devices
from heliostat.spec import Spec

if TYPE_CHECKING:
    from heliostat.train.planning.footprint import Footprint

POD_BYTES = 1 * GIB
"""Of a pod, for Ray's own processes."""


def as_trained(spec: Spec, overlay: str) -> Spec:
    """The spec with bf16 in place of `auto` on the overlay's GPUs; with fp32 on CPUs: it needs the most memory."""
    return on_devices(spec, has_bf16=bool(OVERLAYS[overlay].gpus and spec.train.use_gpu))


def planned(spec: Spec) -> Footprint | str:
    """The footprint of the spec's model, or why there is none without downloads or prepared data."""
    missing = [name for name in ("torch", "transformers", *TRAINING) if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed here"
    if spec.model.source is None:
        return f"model.{spec.model.origin} is built to fit the data"
    kind, _, place = spec.model.source.partition(":")
    if kind != "pkg" or importlib.util.find_spec(place.partition("/")[0]) is None:
        return f"{spec.model.source} is not on this machine"
    return footprint_of(spec, None)


def check_memory(spec: Spec, overlay: str, model: Footprint) -> None:
    """Raises ConfigError where micro-batches of one record do not fit into a pod, or onto any accelerator known."""
    found = OVERLAYS[overlay]
    if found.gpus and spec.train.use_gpu:
        _check_gpus(spec, model)
        return
    together = min(found.in_a_pod(spec.train.cpus_per_worker, 0), spec.train.workers.max)
    needed, given = pod_gib(spec, model, together), spec.cluster.pod_memory_gib or found.memory_gib
    if needed > given:
        alone = "" if together == 1 else f", one (train.cpus_per_worker={found.cpus}) {pod_gib(spec, model, 1)}"
        raise ConfigError(
            f"cluster.pod_memory_gib: {spec.cluster.pod_memory_gib or 'not'} given, and {given} is what a worker pod of"
            f" the overlay {overlay} has; {together} of train.workers in it need {needed}{alone}"
        )


def pod_gib(spec: Spec, model: Footprint, workers: int) -> int:
    """Memory of a pod with so many workers, in whole GiB."""
    return math.ceil((POD_BYTES + workers * worker_bytes(spec, model, spec.train.zero_stage)) / GIB)


def worker_bytes(spec: Spec, model: Footprint, stage: int) -> float:
    """Memory of a worker with micro-batches of one record, when as few work as may."""
    from heliostat.train.planning.plan import RESERVED_BYTES, USABLE, needs

    return (
        RESERVED_BYTES + needs(model, spec.train, stage, spec.train.workers.min, spec.tokens_of_a_record).total / USABLE
    )


def _check_gpus(spec: Spec, model: Footprint) -> None:
    from heliostat.train.planning.plan import STAGES

    most = max(ACCELERATORS, key=lambda one: one.memory_bytes)
    needed = {stage: worker_bytes(spec, model, stage) for stage in STAGES}
    stage = spec.train.zero_stage
    if needed[stage] <= most.memory_bytes:
        return
    fitting = [str(one) for one in STAGES if needed[one] <= most.memory_bytes]
    raise ConfigError(
        f"train.zero_stage: {stage} given, with which a worker needs {needed[stage] / GIB:.0f} GiB of a GPU;"
        f" {most.name} has {most.memory_bytes / GIB:.0f}, where {' or '.join(fitting) or 'no stage'} fits"
    )
