"""One member's part in an all-reduce that is measured: gloo between CPUs, NCCL between the first GPUs of nodes.

Sent to the nodes by value, as `facts` is.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, TypedDict

SMALLEST_BYTES = 1 << 16
LARGEST_BYTES = {"gloo": 1 << 26, "nccl": 1 << 28}
"""64 MiB and 256 MiB: where bandwidth no longer grows with the message, and little enough beside running jobs."""
MOST_REPEATS = 50


class Meeting(TypedDict):
    """What all members of one measurement are told."""

    name: str
    """Different for each measurement."""
    host: str
    """Address of the first member, whose store the others meet at."""
    port: int
    backend: str
    """`gloo` or `nccl`."""
    size: int
    seconds: float
    """How long the measurement is to take, about."""
    patience_seconds: float
    """How long to wait for another member."""


def open_store(address: str) -> Any:
    """A store at a free port of this node, where members of measurements meet."""
    from torch import distributed

    stores: Any = distributed  # whose list of names leaves the stores out
    return stores.TCPStore(address, 0, is_master=True, wait_for_workers=False)


def measure(meeting: Meeting, rank: int) -> float:
    """Bus bandwidth of an all-reduce with the other members, in bytes per second.

    busbw = S / t × 2 (n − 1) / n for a message of S bytes, t seconds and n members, as nccl-tests defines it: what the
    slowest link carries in each direction, whatever n is
    (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). Raises what PyTorch raises if the members do
    not meet, or lose each other.
    """
    from torch import distributed

    stores: Any = distributed  # whose list of names leaves the stores out
    patience = timedelta(seconds=meeting["patience_seconds"])
    # Each group takes the next number as its name, also one that fails; members with other numbers would never meet.
    stores.distributed_c10d._world.group_count = 0
    store = stores.TCPStore(meeting["host"], meeting["port"], is_master=False, timeout=patience)
    distributed.init_process_group(
        meeting["backend"],
        store=stores.PrefixStore(meeting["name"], store),
        rank=rank,
        world_size=meeting["size"],
        timeout=patience,
    )
    try:
        size_bytes, seconds = _largest(meeting)
    finally:
        distributed.destroy_process_group()
    return size_bytes / seconds * 2 * (meeting["size"] - 1) / meeting["size"]


def _largest(meeting: Meeting) -> tuple[int, float]:
    """A size in bytes that fits into the time, and the mean seconds of an all-reduce of it."""
    size_bytes = SMALLEST_BYTES
    _timed(meeting["backend"], size_bytes, 1)  # connections are made
    seconds = _timed(meeting["backend"], size_bytes, 1)
    while seconds < meeting["seconds"] / 16 and size_bytes < LARGEST_BYTES[meeting["backend"]]:
        size_bytes *= 4
        seconds = _timed(meeting["backend"], size_bytes, 1)
    repeats = max(1, min(MOST_REPEATS, int(meeting["seconds"] / 2 / seconds)))
    return size_bytes, _timed(meeting["backend"], size_bytes, repeats)


def _timed(backend: str, size_bytes: int, repeats: int) -> float:
    """Mean seconds of so many all-reduces of `size_bytes`, the longest of all members': all get the same number."""
    import torch
    from torch import distributed

    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    tensor = torch.zeros(size_bytes // 4, dtype=torch.float32, device=device)
    distributed.all_reduce(torch.zeros(1, device=device))  # all begin together
    _finish(device)
    start = time.perf_counter()
    for _ in range(repeats):
        distributed.all_reduce(tensor)
    _finish(device)
    took = torch.tensor([(time.perf_counter() - start) / repeats], dtype=torch.float64, device=device)
    distributed.all_reduce(took, op=distributed.ReduceOp.MAX)
    return max(float(took.item()), 1e-9)


def _finish(device: Any) -> None:
    """Waits for a GPU to have done what it was given; a CPU has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
