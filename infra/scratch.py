"""Temporary folders that are always cleaned up: those of killed processes are deleted by the next process."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_YOUNG_SECONDS = 60.0
"""A younger folder may not be locked yet."""


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """A temporary folder `heliostat-<kind>-…`, deleted afterwards; first deletes those of killed processes."""
    _sweep(kind)
    with TemporaryDirectory(prefix=f"heliostat-{kind}-") as folder, _locked(Path(folder), fcntl.LOCK_EX):
        yield Path(folder)


def _sweep(kind: str) -> None:
    for folder in Path(gettempdir()).glob(f"heliostat-{kind}-*"):
        with suppress(OSError):  # another user's, still in use, or already deleted
            found = folder.stat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _YOUNG_SECONDS:
                with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Locks the folder until the block or the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
