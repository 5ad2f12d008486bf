"""Reads bytes and lines of files, compressed or not; file system errors become one-line DataErrors."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from heliostat.infra.errors import DataError

COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")


def opened(file: Path) -> BinaryIO:
    """The file's bytes, decompressed if its suffix is one of COMPRESSIONS."""
    import pyarrow as pa

    if file.suffix.lower() in COMPRESSIONS:
        return io.BufferedReader(pa.input_stream(str(file), compression="detect"))
    return file.open("rb")


def lines(file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends; only a line feed ends a line, as in JSON Lines."""
    with opened(file) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {line[error.start]:#04x} at {error.start + 1}"
                raise DataError(f"{file} line {number}: not UTF-8 ({byte}); save the file as UTF-8") from None


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Converts OSErrors in the block to DataErrors that name `file`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
