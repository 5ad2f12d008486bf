"""Device and precision of a replica."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from heliostat.infra import log
from heliostat.infra.bf16 import has_bf16
from heliostat.infra.memory import keep_freed_memory
from heliostat.serve.config import ServeConfig

if TYPE_CHECKING:
    import torch

CACHE_SHARE = {"cpu": 0.25, "cuda": 0.8}
_log = log.get(__name__)


def device_of(config: ServeConfig) -> torch.device:
    """A GPU if the replica was given one, else the CPU, with as many threads as the replica has CPUs."""
    import torch

    if config.gpus_per_replica > 0 and torch.cuda.is_available():
        return torch.device("cuda", 0)
    torch.set_num_threads(max(1, int(config.cpus_per_replica)))
    keep_freed_memory()
    return torch.device("cpu")


def dtype_of(config: ServeConfig, device: torch.device) -> torch.dtype:
    """The type that `config.precision` means on this device; warns of bfloat16 that is emulated."""
    import torch

    if config.precision == "fp32":
        return torch.float32
    if has_bf16(device.type):
        return torch.bfloat16
    if config.precision == "bf16":
        _log.warning("serve.precision: bf16 given, which this %s emulates; auto or fp32 is faster", device.type)
        return torch.bfloat16
    _log.info("this %s does not compute bfloat16: serving in float32", device.type)
    return torch.float32


def cache_bytes(device: torch.device) -> int:
    """Memory for the KV cache: a share of what is free now."""
    import torch

    if device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    else:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(free_bytes * CACHE_SHARE[device.type])
