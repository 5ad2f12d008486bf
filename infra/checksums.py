"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from heliostat.infra.errors import DataError


def file_digest(file: Path) -> str:
    """SHA-256 of the file's content, in hex; raises DataError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
