"""The interface of storage, for local folders and buckets.

A key is a relative path with forward slashes, such as `runs/7f3a/spec.yaml`. A prefix is a folder of keys, so
`runs/7f3a` does not match `runs/7f3abc`; the empty prefix matches everything. Writes are atomic: a reader sees all of a
write or none of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from heliostat.infra.errors import StorageError


@dataclass(frozen=True)
class Entry:
    """One stored object: key relative to the store's root, size, and a version that changes with its content."""

    key: str
    size_bytes: int
    version: str = field(default="", compare=False)
    """The ETag in a bucket, the modification time of a file."""
    modified: float = field(default=0.0, compare=False)
    """Unix time of the last write, by the clock of the server or of the disk's machine."""


class Store(Protocol):
    """What both kinds of storage provide. Methods raise StorageError on failures, NotFoundError for a missing key.

    Stores can be pickled, to be sent to Ray workers.
    """

    @property
    def url(self) -> str:
        """The root: an absolute path or `s3://bucket/prefix`."""

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, raises AlreadyExistsError if `key` exists (checked atomically)."""

    def upload(self, file: Path, key: str) -> None:
        """Stores a local file."""

    def download(self, key: str, file: Path) -> None:
        """Writes `key` to a local file; creates its folder if needed."""

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""

    def list(self, prefix: str = "") -> list[Entry]:
        """All keys under `prefix`, sorted."""

    def delete(self, prefix: str) -> None:
        """Deletes `prefix` and all keys under it. Idempotent."""


def check_key(key: str, *, prefix: bool = False) -> str:
    """Returns `key` if it stays below the root of its store; a prefix may be empty.

    Raises StorageError for absolute keys, `..` and empty parts.
    """
    if prefix and not key:
        return key
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
        raise StorageError(f"{key!r}: not a storage key; a relative path with forward slashes and no '..' is needed")
    return key
