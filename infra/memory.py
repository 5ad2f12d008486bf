"""Memory: its unit, and that of a process that computes on CPUs."""

from __future__ import annotations

import ctypes
import resource
import sys

GIB = 2**30
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc keep large freed blocks for the next pass (2 GiB at most) instead of handing them to the system.

    The system hands them back page by page, each filled with zeros: a tenth of a training step on CPUs, a fifth of an
    encoder's forward pass. Where the C library is another one, nothing happens.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_resident_bytes() -> int:
    """The most memory that this process has held at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
