"""Bundles: directories in storage that are stored completely or not at all.

The files are stored first, and last `manifest.json` with their sizes and SHA-256 sums: without a manifest there is no
bundle, and files are verified against it when they are fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from heliostat.infra import log
from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import IntegrityError, NotFoundError, StorageError
from heliostat.infra.storage.base import Store, check_key

MANIFEST = "manifest.json"

_THREADS = 4
_CHUNK_BYTES = 1 << 20
_log = log.get(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class FileEntry(StrictModel):
    """What one file of a bundle must be."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(StrictModel):
    """What a bundle holds."""

    version: Literal[1] = 1
    created: datetime
    metadata: dict[str, Any]
    files: dict[str, FileEntry]
    """Relative path with forward slashes -> what it must be."""
    digest: str = Field(default="", exclude=True)
    """SHA-256 of the stored manifest, and so of everything in the bundle."""


def publish_directory(store: Store, prefix: str, directory: Path, metadata: dict[str, Any] | None = None) -> Manifest:
    """Stores all files below `directory` under `prefix`; `metadata`, which must be JSON, goes into the manifest.

    Raises StorageError if `prefix` already holds a bundle (bundles are immutable), if `directory` has no files or has
    one called `manifest.json`, or if storage fails; in these cases nothing is published.
    """
    if store.exists(_key(prefix, MANIFEST)):
        raise StorageError(f"{_where(store, prefix)}: holds a bundle already, and bundles never change")
    names = _file_names(directory)

    def put(name: str) -> FileEntry:
        store.upload(directory / name, _key(prefix, name))
        return _entry(directory / name)

    _log.info("storing %d files in %s", len(names), _where(store, prefix))
    files = dict(zip(names, _in_parallel(put, names), strict=True))
    manifest = Manifest(created=datetime.now(timezone.utc), metadata=metadata or {}, files=files)
    data = (manifest.model_dump_json(indent=2) + "\n").encode()
    store.write_bytes(_key(prefix, MANIFEST), data, if_absent=True)
    return manifest.model_copy(update={"digest": hashlib.sha256(data).hexdigest()})


def publish_once(store: Store, prefix: str, directory: Path, metadata: dict[str, Any] | None = None) -> Manifest:
    """Like `publish_directory`, but if another process has published the bundle in the meantime, returns that one."""
    try:
        return publish_directory(store, prefix, directory, metadata)
    except StorageError:
        if not store.exists(_key(prefix, MANIFEST)):
            raise
        return read_manifest(store, prefix)


def read_manifest(store: Store, prefix: str) -> Manifest:
    """The manifest of the bundle under `prefix`.

    Raises NotFoundError if there is no bundle and IntegrityError if its manifest is damaged.
    """
    where = _where(store, prefix)
    try:
        data = store.read_bytes(_key(prefix, MANIFEST))
    except NotFoundError as error:
        raise NotFoundError(f"{where}: no bundle here (no {MANIFEST})") from error
    try:
        manifest = Manifest.model_validate_json(data)
        for name in manifest.files:
            check_key(name)
    except (ValidationError, StorageError) as error:
        reason = str(error) if isinstance(error, StorageError) else "not a manifest of this version"
        raise IntegrityError(f"{where}/{MANIFEST}: damaged: {reason}") from error
    return manifest.model_copy(update={"digest": hashlib.sha256(data).hexdigest()})


def fetch_directory(store: Store, prefix: str, destination: Path, *, digest: str | None = None) -> Manifest:
    """Copies a bundle to the folder `destination`, which appears only once all files are there and verified.

    If the destination already holds files, they are verified and kept. Raises NotFoundError if there is no bundle, and
    IntegrityError if the manifest does not have the given `digest`, or if a file is missing or differs from the
    manifest.
    """
    manifest = read_manifest(store, prefix)
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(
            f"{_where(store, prefix)}/{MANIFEST}: has SHA-256 {manifest.digest}, and {digest} is expected"
        )
    if destination.is_dir() and any(destination.iterdir()):
        verify_directory(destination, manifest)
        return manifest
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(prefix=f".{destination.name}-", suffix=".part", dir=destination.parent))
    try:
        _in_parallel(lambda name: _fetch(store, prefix, name, part, manifest.files[name]), manifest.files)
        _move_into_place(part, destination, manifest)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def read_file(store: Store, prefix: str, name: str, manifest: Manifest) -> bytes:
    """Reads one file of a bundle; raises IntegrityError if it differs from the manifest."""
    where = _where(store, _key(prefix, name))
    try:
        data = store.read_bytes(_key(prefix, name))
    except NotFoundError as error:
        raise IntegrityError(f"{where}: missing, and a published model has it") from error
    if FileEntry(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) != manifest.files.get(name):
        raise IntegrityError(f"{where}: is not what the manifest says")
    return data


def verify_directory(directory: Path, manifest: Manifest) -> None:
    """Verifies the files in the manifest, ignoring others; raises IntegrityError with one that differs."""
    _in_parallel(lambda name: _verify(directory / name, manifest.files[name], str(directory / name)), manifest.files)


def delete_directory(store: Store, prefix: str) -> None:
    """Deletes a bundle: the manifest first, so that an interrupted deletion leaves no bundle."""
    store.delete(_key(prefix, MANIFEST))
    store.delete(prefix)


def write_pointer(store: Store, key: str, value: dict[str, Any]) -> None:
    """Atomically stores a small JSON object that may change, such as the name of the newest checkpoint."""
    store.write_bytes(key, (json.dumps(value, indent=2) + "\n").encode())


def read_pointer(store: Store, key: str) -> dict[str, Any]:
    """Reads what `write_pointer` stored; raises NotFoundError if there is none, IntegrityError if it is damaged."""
    try:
        value = json.loads(store.read_bytes(key))
    except ValueError as error:
        raise IntegrityError(f"{_where(store, key)}: damaged: not JSON") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{_where(store, key)}: damaged: {type(value).__name__}, an object is needed")
    return value


def _file_names(directory: Path) -> list[str]:
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    if not names:
        raise StorageError(f"{directory}: no files to store")
    if MANIFEST in names:
        raise StorageError(f"{directory / MANIFEST}: this name is kept for the manifest; rename the file")
    return names


def _fetch(store: Store, prefix: str, name: str, folder: Path, entry: FileEntry) -> None:
    where = _where(store, _key(prefix, name))
    try:
        store.download(_key(prefix, name), folder / name)
    except NotFoundError as error:
        raise IntegrityError(f"{where}: missing, but the manifest names it") from error
    _verify(folder / name, entry, where)


def _verify(file: Path, expected: FileEntry, where: str) -> None:
    if not file.is_file():
        raise IntegrityError(f"{where}: missing, but the manifest names it")
    size = file.stat().st_size
    if size != expected.size_bytes:
        raise IntegrityError(f"{where}: has {size} bytes, and the manifest says {expected.size_bytes}")
    found = _entry(file)
    if found != expected:
        raise IntegrityError(f"{where}: has SHA-256 {found.sha256}, and the manifest says {expected.sha256}")


def _entry(file: Path) -> FileEntry:
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as reader:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size_bytes=size, sha256=digest.hexdigest())


def _move_into_place(part: Path, destination: Path, manifest: Manifest) -> None:
    part.chmod(0o755)  # mkdtemp creates folders that only their owner can open
    try:
        os.replace(part, destination)
    except OSError:
        if not destination.is_dir():
            raise
        verify_directory(destination, manifest)  # another process was faster


def _in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results in order; after a failure, pending calls are cancelled."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _where(store: Store, key: str) -> str:
    return f"{store.url}/{key}" if key else store.url
