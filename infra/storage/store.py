"""Where bytes live: a local folder or an S3 bucket, behind one small interface.

A key is a relative path with forward slashes, such as `runs/7f3a/spec.yaml`. A prefix is a folder of keys, so
`runs/7f3a` does not take in `runs/7f3abc`; the empty prefix means everything. A write is atomic: a reader
sees the whole of it or none of it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Protocol
from uuid import uuid4

from pydantic import Field, field_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import NotFoundError, StorageError

DEFAULT_FOLDER = "heliostat-data"
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def is_s3(url: str) -> bool:
    """Whether `url` names a bucket rather than a local path."""
    return url.startswith("s3://")


class StorageConfig(StrictModel):
    """The `storage` section of a spec. Credentials are never in it: boto3 finds them where it always does."""

    url: str = Field(
        default_factory=lambda: os.environ.get("HELIOSTAT_STORAGE") or DEFAULT_FOLDER, validate_default=True
    )
    """`s3://bucket/prefix` or a local path; HELIOSTAT_STORAGE where left out."""
    endpoint_url: str | None = None
    """Address of an S3-compatible server; AWS_ENDPOINT_URL_S3 where left out, and AWS where neither is."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if is_s3(url):
            if not re.match(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)", url):
                raise ValueError("a bucket is needed: s3://bucket/prefix, the bucket in a-z, 0-9, dots and dashes")
            return url.rstrip("/")
        if "://" in url or not url.strip():
            raise ValueError("s3://bucket/prefix or a local path is allowed")
        # Absolute, because a Ray worker has another working directory than the command that started it.
        return str(Path(url).expanduser().absolute())

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/\s]", url):
            raise ValueError("http://host:port or https://host is allowed")
        return url


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


def open_store(storage: StorageConfig | str, endpoint_url: str | None = None) -> Store:
    """The store at a url or as a spec says; opening it touches nothing yet.

    Raises ConfigError where a url is neither a path nor `s3://bucket/prefix`.
    """
    if isinstance(storage, str):
        from heliostat.infra.config.strict import build

        storage = build(StorageConfig, {"url": storage, "endpoint_url": endpoint_url}, source="storage")
    if not is_s3(storage.url):
        return LocalStore(storage.url)
    from heliostat.infra.storage.s3 import S3Store

    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix, storage.endpoint_url)


def check_key(key: str, *, prefix: bool = False) -> str:
    """`key`, once it is sure to stay below the root of its store; a prefix may be empty.

    Raises StorageError for absolute keys, `..` and empty parts.
    """
    if prefix and not key:
        return key
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
        raise StorageError(f"{key!r}: not a storage key; a relative path with forward slashes and no '..' is needed")
    return key


@dataclass(frozen=True)
class LocalStore:
    """A folder on a local or shared disk."""

    url: str

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""
        with self._explained("read", key) as path:
            return path.read_bytes()

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, StorageError where `key` is there already."""
        with self._explained("write", key) as path:
            write_atomically(path, lambda file: file.write(data), if_absent=if_absent)

    def upload(self, file: Path, key: str) -> None:
        """Stores a copy of a local file."""
        with self._explained("write", key) as path:
            _copy_atomically(file, path)

    def download(self, key: str, file: Path) -> None:
        """Copies `key` to a local file."""
        with self._explained("read", key) as path:
            _copy_atomically(path, file)

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""
        with self._explained("look for", key) as path:
            return path.is_file()

    def list(self, prefix: str = "") -> list[Entry]:
        """All keys under `prefix`, sorted; half-written files are left out."""
        root = Path(self.url)
        with self._explained("list", prefix, prefix=True) as top:
            found = [_entry_of(path, root) for path in _files_below(top) if not _is_part(path)]
        return sorted((entry for entry in found if entry), key=lambda entry: entry.key)

    def delete(self, prefix: str) -> None:
        """Removes `prefix` and all keys under it."""
        with self._explained("delete", prefix) as path:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, operation: str, key: str, *, prefix: bool = False) -> Iterator[Path]:
        """The path of `key`; an OSError inside becomes one line that names operation, path and cause."""
        path = Path(self.url) / check_key(key, prefix=prefix)
        try:
            yield path
        except OSError as error:
            # By what failed, not by a second look: the file may have come since.
            if operation == "read" and isinstance(error, _NO_FILE) and error.filename == str(path):
                raise NotFoundError(f"{path}: cannot read: no such file") from error
            if isinstance(error, FileExistsError) and path.exists():
                raise StorageError(f"{path}: cannot write: it exists already and is never overwritten") from error
            where = error.filename or path
            raise StorageError(f"{where}: cannot {operation} {key!r}: {error.strerror or error}") from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, if_absent: bool = False) -> None:
    """Makes `path` hold what `write` writes to the file it is given, all of it or nothing.

    The bytes reach the disk under another name in the same folder, then get their name in one step. Raises
    FileExistsError with `if_absent` where `path` is there, and any OSError as it comes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{uuid4().hex}.part"
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            os.link(part, path)  # unlike a rename, a link fails where the name is taken
        else:
            part.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _copy_atomically(source: Path, target: Path) -> None:
    with source.open("rb") as reader:
        write_atomically(target, lambda writer: shutil.copyfileobj(reader, writer, 1 << 20))


def _files_below(top: Path) -> Iterator[Path]:
    """What is in the folder and those below it, without folders that another process removes meanwhile."""

    def fail(error: OSError) -> None:
        if not isinstance(error, _NO_FILE):
            raise error

    for folder, _, names in os.walk(top, onerror=fail):
        yield from (Path(folder, name) for name in names)


def _entry_of(path: Path, root: Path) -> Entry | None:
    """None for what is no file, or not any more."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    if not S_ISREG(stat.st_mode):
        return None
    return Entry(path.relative_to(root).as_posix(), stat.st_size, str(stat.st_mtime_ns))


def _is_part(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".part"


def _sync_folder(folder: Path) -> None:
    """Puts the new name on disk, not only the bytes behind it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
