"""Storage in a folder on a local or shared disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO
from uuid import uuid4

from heliostat.infra.errors import AlreadyExistsError, NotFoundError, StorageError
from heliostat.infra.storage.base import Entry, check_key

_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class LocalStore:
    """Storage in a folder on a local or shared disk."""

    url: str

    def read_bytes(self, key: str) -> bytes:
        """All bytes of `key`."""
        with self._explained("read", key) as path:
            return path.read_bytes()

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Stores `data`; with `if_absent`, raises AlreadyExistsError if `key` exists."""
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
        """All keys under `prefix`, sorted; partially written files are left out.

        A folder that is not there yet has none; what is no folder is an error, as a storage that was taken away may be.
        """
        root = Path(self.url)
        with self._explained("list", prefix, prefix=True) as top:
            if root.exists() and not root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))
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
        """Yields the path of `key`; turns an OSError in the block into one line with operation, path and cause."""
        path = Path(self.url) / check_key(key, prefix=prefix)
        try:
            yield path
        except OSError as error:
            # Decide by the error instead of checking again: the file may have been created since.
            if operation == "read" and isinstance(error, _NO_FILE) and error.filename == str(path):
                raise NotFoundError(f"{path}: cannot read: no such file") from error
            if isinstance(error, FileExistsError) and path.exists():
                reason = "it exists already and is never overwritten"
                raise AlreadyExistsError(f"{path}: cannot write: {reason}") from error
            where = error.filename or path
            raise StorageError(f"{where}: cannot {operation} {key!r}: {error.strerror or error}") from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, if_absent: bool = False) -> None:
    """Writes a file completely or not at all; `write` is called with the open file.

    The content goes to a temporary file in the same folder, which is then renamed. Raises FileExistsError if `path`
    exists and `if_absent` is set, and passes on any OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{uuid4().hex}.part"
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            os.link(part, path)  # unlike a rename, a link fails if the name exists
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
    """All files in the folder and below, ignoring folders that another process deletes meanwhile."""

    def fail(error: OSError) -> None:
        if not isinstance(error, _NO_FILE):
            raise error

    for folder, _, names in os.walk(top, onerror=fail):
        yield from (Path(folder, name) for name in names)


def _entry_of(path: Path, root: Path) -> Entry | None:
    """The entry of a file; None if it is not a regular file or has been deleted."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    if not S_ISREG(stat.st_mode):
        return None
    return Entry(path.relative_to(root).as_posix(), stat.st_size, str(stat.st_mtime_ns), stat.st_mtime)


def _is_part(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".part"


def _sync_folder(folder: Path) -> None:
    """Syncs the folder, so that the new name is on disk, not only the content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
