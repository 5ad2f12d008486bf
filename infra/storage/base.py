"""What a store of bytes does, whether it is a folder or a bucket.

A key is a relative path with forward slashes, such as `runs/7f3a/spec.yaml`. A prefix is a folder of keys, so
`runs/7f3a` does not take in `runs/7f3abc`; the empty prefix means everything. A write is atomic: a reader
sees the whole of it or none of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from heliostat.infra.errors import StorageError


@dataclass(frozen=True)
class Entry:
    """One stored object: its key from the root of the store, its size, and what changes with its bytes."""

    key: str
    size_bytes: int
    version: str = field(default="", compare=False)
    """The ETag in a bucket, the time of the last write of a file."""


class Store(Protocol):
    """What both kinds of storage do. Failures raise StorageError, a missing key raises NotFoundError.

    A store pickles, so that it can travel to a Ray worker.
    """

    @property
    def url(self) -> str:
        """The root: an absolute path or `s3://bucket/prefix`."""

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, StorageError where `key` is there already, with no race."""

    def upload(self, file: Path, key: str) -> None:
        """Stores a local file."""

    def download(self, key: str, file: Path) -> None:
        """Writes `key` to a local file, whose folder is made where needed."""

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""

    def list(self, prefix: str = "") -> list[Entry]:
        """All keys under `prefix`, sorted."""

    def delete(self, prefix: str) -> None:
        """Removes `prefix` and all keys under it; nothing happens where there are none."""


def check_key(key: str, *, prefix: bool = False) -> str:
    """`key`, once it is sure to stay below the root of its store; a prefix may be empty.

    Raises StorageError for absolute keys, `..` and empty parts.
    """
    if prefix and not key:
        return key
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
        raise StorageError(f"{key!r}: not a storage key; a relative path with forward slashes and no '..' is needed")
    return key
