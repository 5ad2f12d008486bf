"""Whether a device computes bfloat16 itself. Without that, PyTorch emulates it, and float32 is faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CPU_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}
"""What a CPU computes bfloat16 with: PyTorch's name for each kind of instructions -> the vendor's."""


def cpu_unit(capabilities: Mapping[str, Any]) -> str | None:
    """What a CPU with these capabilities (`torch.cpu.get_capabilities()`) computes bfloat16 with; None for nothing."""
    return next((name for key, name in CPU_UNITS.items() if capabilities.get(key)), None)


def has_bf16(device: str) -> bool:
    """Whether this process's device, `cpu` or `cuda`, computes bfloat16 itself."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_unit(torch.cpu.get_capabilities()) is not None
