"""The process group of a run: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

from heliostat.cluster.doctor.compiler import compiler_available, load_operators
from heliostat.infra import log
from heliostat.infra.lean_imports import import_transformers, without
from heliostat.infra.memory import keep_freed_memory

T = TypeVar("T")
_log = log.get(__name__)


@dataclass(frozen=True)
class World:
    """Rank, world size and device of this worker. A world of size 1 needs no process group."""

    rank: int
    size: int
    device: str
    """`cpu` or `cuda`."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which does what must be done only once."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The arrays of all ranks, in rank order; their shapes may differ."""
        arrays: list[np.ndarray] = [array] * self.size
        if self.size > 1:
            distributed.all_gather_object(arrays, array)
        return arrays

    def from_first(self, make: Callable[[], T]) -> T:
        """Calls `make` on rank 0 only and broadcasts its result to every rank."""
        box: list[Any] = [make() if self.is_first else None]
        if self.size > 1:
            distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch on this worker's device."""
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}


def join(device: str) -> World:
    """Joins the process group described by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or reuses an existing one.

    Initialises DeepSpeed too; its shared-memory all-reduce is compiled at the first use if there is a compiler. Raises
    ResourceError if that fails.
    """
    deepspeed = import_deepspeed()
    if not compiler_available():
        _log.warning("no C++ compiler: DeepSpeed's own operators are left out, PyTorch's are used (heliostat doctor)")
        deepspeed.ops.__compatible_ops__.update(dict.fromkeys(deepspeed.ops.__compatible_ops__, False))
    elif device == "cpu":
        load_operators()
    backend = "nccl" if device == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return World(distributed.get_rank(), distributed.get_world_size(), device)


def import_deepspeed() -> ModuleType:
    """DeepSpeed without MLflow, which its autotuner needs (1.4 CPU seconds), and with Muon uncompiled (1.0).

    DeepSpeed imports its Muon optimizer with every engine, and compiles parts of it as it does so.
    """
    with without("mlflow"):
        import deepspeed
        from deepspeed.runtime import compiler
    compiled = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon
    finally:
        compiler.compile = compiled
    return deepspeed


def configure_process(cpus_per_worker: int) -> None:
    """Sets up a worker process: one thread per CPU (more would compete), freed memory kept, libraries quiet."""
    import_transformers().logging.set_verbosity_error()
    os.environ["OMP_NUM_THREADS"] = str(cpus_per_worker)
    torch.set_num_threads(cpus_per_worker)
    keep_freed_memory()
