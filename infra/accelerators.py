"""Memory, bfloat16 peak and price of accelerators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.infra.memory import GIB

TERA = 1e12
PRICES_OF = "2026-11"
"""When the prices in `usd_per_hour` were looked up."""


@dataclass(frozen=True)
class Accelerator:
    """One kind of device, with the vendor's own figures."""

    name: str
    words: tuple[str, ...]
    """Words in the device name that the driver reports, such as `NVIDIA A100-SXM4-80GB`."""
    memory_bytes: int
    peak_flops: float
    """bfloat16 with float32 accumulation, dense, FLOP/s; data sheets print twice as much, with sparsity."""
    data_sheet: str
    usd_per_hour: float | None = None
    """Price of one device, on demand, AWS us-east-1 (https://aws.amazon.com/ec2/pricing/on-demand/); None if
    unknown."""


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
ACCELERATORS = (
    Accelerator("B200", ("B200",), 180 * GIB, 2250 * TERA, _NVIDIA + "dgx-b200/"),
    Accelerator("H200", ("H200",), 141 * GIB, 989.4 * TERA, _NVIDIA + "h200/"),
    Accelerator("H100 PCIe", ("H100", "PCIE"), 80 * GIB, 756.5 * TERA, _NVIDIA + "h100/"),
    Accelerator("H100", ("H100",), 80 * GIB, 989.4 * TERA, _NVIDIA + "h100/", 6.88),
    Accelerator("A100 80 GB", ("A100", "80GB"), 80 * GIB, 312 * TERA, _NVIDIA + "a100/", 3.43),
    Accelerator("A100", ("A100",), 40 * GIB, 312 * TERA, _NVIDIA + "a100/", 2.74),
    Accelerator("L40S", ("L40S",), 48 * GIB, 362 * TERA, _NVIDIA + "l40s/", 1.86),
    Accelerator("L4", ("L4",), 24 * GIB, 121 * TERA, _NVIDIA + "l4/", 0.80),
)
"""The first match counts, so more specific names come first."""


def accelerator_of(device_name: str) -> Accelerator | None:
    """The accelerator with this driver name; None if it is not in the table."""
    words = device_name.upper().replace("-", " ").split()
    return next((one for one in ACCELERATORS if set(one.words) <= set(words)), None)


def read_price(text: str, names: Sequence[str]) -> tuple[str, float]:
    """Name and USD an hour of `NAME=USD`; raises ValueError, which says what is allowed, for any other text or name."""
    name, _, given = text.partition("=")
    try:
        usd = float(given)
    except ValueError:
        usd = -1
    if name not in names or not 0 <= usd < math.inf:
        raise ValueError(f"write NAME=USD, with a name of {', '.join(names)}")
    return name, usd
