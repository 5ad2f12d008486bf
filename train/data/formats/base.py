"""The interface of file formats, and code that all formats share.

Reading is strict, so that nothing is silently dropped or converted: each failure is a DataError that names the file,
the line and the problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.reading import COMPRESSIONS

SHOWN_COLUMNS = 20
IMAGE_COLUMNS = ("image", "label")

Record = dict[str, Any]
Needed = Mapping[str, str]
"""Column -> the spec key that requires it, such as `data.columns.text`."""
Files = tuple[Path, ...]


class NotedRecord(Record):
    """A record that is fine, and that the user should be told something about."""

    def __init__(self, record: Record, note: str) -> None:
        super().__init__(record)
        self.note = note
        """What is unusual, and what to do if it is wrong; in brackets at its end what belongs to this record only."""


def ending(file: Path) -> str:
    """The suffix that identifies the format, in lower case: `.csv` of `a.CSV.gz`; empty if there is none."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


Reader = Callable[[Path, Needed, bool], Iterator[tuple[int, Record]]]


@dataclass(frozen=True)
class Format:
    """How to read records from files of one kind."""

    read: Reader
    """Yields number (from 1) and record of a file; only the needed columns, or all if the third argument is True."""
    endings: tuple[str, ...] = ()
    """File name suffixes that identify this format, such as `.csv`."""
    pattern: str | None = None
    """A regular expression for lower-case file names that identifies this format, whatever the suffix."""
    counted_by: Literal["line", "record", "file"] = "record"
    """What record numbers count; `file` if each file is one record."""
    find: Callable[[Path, list[Path]], tuple[Files, Files]] | None = None
    """Returns the files at a path that hold records, in order, and the files that hold their labels; if None, the files
    with this format's suffixes are read."""
    by_quoting: Mapping[str, Reader] = field(default_factory=dict)
    """Readers for values of `data.quoting` other than `auto`, for formats that can be read with and without quotes."""
    name_part: Callable[[Path], str] = ending
    """The part of a file's name that affects its records."""


def check_columns(file: Path, found: Iterable[str], needed: Needed, every: bool = False) -> None:
    """Raises DataError for the first column in `needed` that is not in `found`, or is there twice."""
    there = list(found)
    for column, key in needed.items():
        if column not in there:
            more = ", ..." if len(there) > SHOWN_COLUMNS else ""
            listed = ", ".join(there[:SHOWN_COLUMNS]) + more
            raise DataError(f"{key}: column {column!r} is not in {file}; it has {listed or 'none'}")
    twice = [name for name, count in Counter(there).items() if count > 1 and (every or name in needed)]
    if twice:
        raise DataError(f"{file}: column {twice[0]!r} is there twice; names that differ are needed")


def read_images(read: Callable[[Path], Iterator[tuple[int, Record]]]) -> Callable[..., Iterator[tuple[int, Record]]]:
    """`Format.read` for a format whose records all have IMAGE_COLUMNS.

    The image is uint8 [height, width, 1 or 3], or the bytes of its file; the label is text. Images may differ in size.
    """

    def columns_of(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
        check_columns(file, IMAGE_COLUMNS, needed)
        for number, record in read(file):
            yield number, {column: record[column] for column in (IMAGE_COLUMNS if every else needed)}

    return columns_of
