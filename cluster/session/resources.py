"""Checks before anything starts whether the resources that a command needs are available."""

from __future__ import annotations

import math
import os
from pathlib import Path

from heliostat.cluster.config import ClusterConfig
from heliostat.infra import log
from heliostat.infra.errors import ResourceError

_log = log.get(__name__)


def local_cpus() -> int:
    """CPUs that this process may use: its affinity, or the container's quota if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _container_cpus() or allowed))


def _container_cpus(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Whole CPUs in the container's quota (cgroup v2, "QUOTA PERIOD" in microseconds); None if it has none."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) // int(period)
    except (OSError, ValueError):
        return None


def check_local(config: ClusterConfig, key: str, cpus: float, gpus: float) -> None:
    """Raises ResourceError if a Ray started on this machine could not provide what the spec's `key` asks for."""
    there = config.num_cpus or local_cpus()
    if cpus > there:
        raise ResourceError(
            f"{key}: {cpus:g} CPUs needed, {there} here; lower it, set cluster.num_cpus={math.ceil(cpus)} to share "
            "the CPUs that there are, or name a larger Ray in cluster.address"
        )
    if gpus > 0 and gpus > (found := config.num_gpus if config.num_gpus is not None else local_gpus()):
        raise ResourceError(
            f"{key}: {gpus:g} GPUs needed, {found} here; lower it, work without GPUs (train.use_gpu=false, "
            "serve.gpus_per_replica=0), or name a Ray that has them in cluster.address"
        )


def local_gpus() -> int:
    """GPUs that Ray detects on this machine."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager = get_accelerator_manager_for_resource("GPU")
    return 0 if manager is None else int(manager.get_current_node_num_accelerators())


def check_cluster(config: ClusterConfig, key: str, cpus: float, gpus: float) -> None:
    """Raises ResourceError if the current cluster has less than `key` asks for and does not autoscale.

    Ray cannot tell whether it autoscales: its API for that is not implemented in the open-source version.
    """
    import ray

    if config.autoscales:
        return
    there = ray.cluster_resources()
    for kind, needed in {"CPU": cpus, "GPU": gpus}.items():
        if needed > there.get(kind, 0):
            raise ResourceError(
                f"{key}: {needed:g} {kind}s needed, the Ray cluster has {there.get(kind, 0):g}; lower it, add nodes, "
                "or set cluster.autoscales=true if the cluster adds them by itself"
            )


def warn_if_busy(key: str, cpus: float, gpus: float) -> None:
    """Logs what is free if the current cluster cannot provide what `key` asks for now: the work will wait."""
    import ray

    there, needed = ray.cluster_resources(), {"CPU": cpus, "GPU": gpus}
    for kind, idle in lacking_resources(cpus, gpus).items():
        _log.warning(
            "%s: %g %ss needed, %g of the Ray cluster's %g are free; the work waits for the rest",
            key, needed[kind], kind, idle, there.get(kind, 0),
        )  # fmt: skip


def lacking_resources(cpus: float, gpus: float) -> dict[str, float]:
    """Free CPUs and GPUs in the current cluster, only of those kinds of which less is free than needed."""
    import ray

    free = ray.available_resources()
    return {kind: free.get(kind, 0) for kind, n in {"CPU": cpus, "GPU": gpus}.items() if n > free.get(kind, 0)}
