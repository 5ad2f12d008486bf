"""Device and precision of a replica."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from heliostat.infra import log
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
    """bfloat16 if configured and supported in hardware; without it, bfloat16 would be slower than float32."""
    import torch

    if config.precision == "fp32":
        return torch.float32
    if device.type == "cpu" and not _cpu_has_bf16():
        _log.info("this processor has no bfloat16 arithmetic: serving in float32")
        return torch.float32
    return torch.bfloat16


def cache_bytes(device: torch.device) -> int:
    """Memory for the KV cache: a share of what is free now."""
    import torch

    if device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    else:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(free_bytes * CACHE_SHARE[device.type])


def _cpu_has_bf16() -> bool:
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))
