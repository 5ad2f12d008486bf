"""How many pods a spec needs of an overlay. Pure; what does not fit is refused in one line."""

from __future__ import annotations

import math

from heliostat.cluster.kubernetes.overlays import OVERLAYS, Overlay
from heliostat.cluster.kubernetes.workload import Pods
from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec


def workers(spec: Spec, overlay: str, job: str = "train") -> Pods:
    """Worker pods for a job: one for preparing and evaluating, and more as they are asked for.

    Raises ConfigError where training does not fit.
    """
    train, found = spec.train, OVERLAYS[overlay]
    if job in ("prepare", "evaluate"):
        return Pods(1, found.most_workers or max(1, math.ceil(train.workers.max * train.cpus_per_worker / found.cpus)))
    each = _workers_of_a_pod(spec, overlay, found)
    trials = spec.tune.most_gangs * train.workers.min if job == "tune" and spec.tune.concurrent else 0
    key = "tune.concurrent times train.workers" if trials > train.workers.max else "train.workers"
    return _pods(key, train.workers.min, max(train.workers.max, trials), each, overlay, found.most_workers)


def replicas(spec: Spec, overlay: str) -> Pods:
    """Serving pods; raises ConfigError where they do not fit, or are too few for a node to be drained."""
    serve, found = spec.serve, OVERLAYS[overlay]
    each = found.in_a_pod(serve.cpus_per_replica, serve.gpus_per_replica)
    if each == 0:
        raise ConfigError(
            f"serve.cpus_per_replica: {serve.cpus_per_replica:g} given, and gpus_per_replica"
            f" {serve.gpus_per_replica:g}; a serving pod of the overlay {overlay} has {found.cpus} CPUs and"
            f" {found.gpus} GPUs"
        )
    pods = _pods("serve.replicas", serve.replicas.min, serve.replicas.max, each, overlay, found.most_replicas)
    if pods.least < found.least_replicas:
        raise ConfigError(
            f"serve.replicas.min: {serve.replicas.min} given, {each} to a pod; the overlay {overlay} drains a node at"
            f" a time, which needs {found.least_replicas} pods: {(found.least_replicas - 1) * each + 1} replicas"
        )
    return pods


def _workers_of_a_pod(spec: Spec, overlay: str, found: Overlay) -> int:
    train = spec.train
    uses_gpu = bool(found.gpus) if train.use_gpu == "auto" else train.use_gpu
    each = found.in_a_pod(train.cpus_per_worker, 1 if uses_gpu else 0)
    if each == 0:
        raise ConfigError(
            f"train.cpus_per_worker: {train.cpus_per_worker} given{' on a GPU' if uses_gpu else ''}; a worker pod of "
            f"the overlay {overlay} has {found.cpus} CPUs and {found.gpus} GPUs"
        )
    return each


def _pods(key: str, least: int, most: int, each: int, overlay: str, allowed: int | None) -> Pods:
    pods = Pods(max(1, math.ceil(least / each)), max(1, math.ceil(most / each)))
    if allowed is not None and pods.most > allowed:
        raise ConfigError(
            f"{key}: {most} given, {each} to a pod; the overlay {overlay} has room for {allowed * each} in all"
        )
    return pods
