"""Memory of a process that computes on CPUs."""

from __future__ import annotations

import ctypes
import resource
import sys

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Makes glibc keep freed large blocks (2 GiB at most) for reuse instead of returning them to the system.

    The system provides new pages one by one, zeroed: that takes a tenth of a training step on CPUs, a fifth of an
    encoder's forward pass. No effect with other C libraries.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_resident_bytes() -> int:
    """Peak resident memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
