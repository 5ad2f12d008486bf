"""Counts what a process asks of storage, where it exports metrics: `observed`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heliostat.infra.errors import AlreadyExistsError, NotFoundError, StorageError
from heliostat.infra.metrics import of_storage
from heliostat.infra.storage.base import Entry, Store
from heliostat.infra.storage.config import Kind

if TYPE_CHECKING:
    from heliostat.infra.metrics.export import Exporter, Record

Operation = Literal["read", "write", "list", "delete", "exists"]
_record: Record | None = None
_current: ContextVar[Mapping[str, str] | None] = ContextVar("operation", default=None)
"""Labels of the operation that this thread works for."""


@contextmanager
def observed(exporter: Exporter, kind: Kind) -> Iterator[None]:
    """Exports each operation of this process on storage during the block; counters for `kind` begin at zero."""
    global _record
    exporter.begin(of_storage.METRICS, {"storage": kind})
    before, _record = _record, exporter.add
    try:
        yield
    finally:
        _record = before


@dataclass
class Moved:
    """What an operation moved."""

    bytes: int = 0


def retried() -> None:
    """Counts a request that is sent again for the operation of this thread."""
    labels = _current.get()
    if _record and labels:
        _record(of_storage.RETRIES, 1, labels)


@dataclass(frozen=True)
class MeasuredStore:
    """A store whose operations are counted."""

    store: Store
    kind: Kind

    @property
    def url(self) -> str:
        """The root of the store."""
        return self.store.url

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""
        with self._measured("read") as moved:
            data = self.store.read_bytes(key)
            moved.bytes = len(data)
        return data

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, raises AlreadyExistsError if `key` exists."""
        with self._measured("write") as moved:
            self.store.write_bytes(key, data, if_absent=if_absent)
            moved.bytes = len(data)

    def upload(self, file: Path, key: str) -> None:
        """Stores a local file."""
        with self._measured("write") as moved:
            self.store.upload(file, key)
            moved.bytes = _size(file)

    def download(self, key: str, file: Path) -> None:
        """Writes `key` to a local file."""
        with self._measured("read") as moved:
            self.store.download(key, file)
            moved.bytes = _size(file)

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""
        with self._measured("exists"):
            return self.store.exists(key)

    def list(self, prefix: str = "") -> list[Entry]:
        """All keys under `prefix`, sorted."""
        with self._measured("list"):
            return self.store.list(prefix)

    def delete(self, prefix: str) -> None:
        """Deletes `prefix` and all keys under it."""
        with self._measured("delete"):
            self.store.delete(prefix)

    @contextmanager
    def _measured(self, operation: Operation) -> Iterator[Moved]:
        """Records the operation in the block; yields where to note the bytes that it moved."""
        record, moved = _record, Moved()
        if record is None:
            yield moved
            return
        labels = {"storage": self.kind, "operation": operation}
        token, started, failed = _current.set(labels), time.perf_counter(), 0
        try:
            yield moved
        except StorageError as error:
            failed = not isinstance(error, NotFoundError | AlreadyExistsError)
            raise
        finally:
            _current.reset(token)
            record(of_storage.REQUESTS, 1, labels)
            record(of_storage.SECONDS, time.perf_counter() - started, labels)
            record(of_storage.BYTES, moved.bytes, labels)
            record(of_storage.ERRORS, failed, labels)


def _size(file: Path) -> int:
    """Bytes of a file; 0 if it has been taken away since."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
