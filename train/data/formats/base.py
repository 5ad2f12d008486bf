"""What a file format is, and what all formats share.

Reading is strict, so that nothing is dropped or turned into something else unseen: each failure is a
DataError that names the file, the line and what is wrong there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.reading import COMPRESSIONS

SHOWN_COLUMNS = 20
IMAGE_COLUMNS = ("image", "label")

Record = dict[str, Any]
Needed = Mapping[str, str]
"""Column -> the spec key that asks for it, such as `data.columns.text`."""
Files = tuple[Path, ...]


def ending(file: Path) -> str:
    """The ending that tells the format, in lower case: `.csv` of `a.CSV.gz`; empty where there is none."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


@dataclass(frozen=True)
class Format:
    """How records come out of files of one kind."""

    read: Callable[[Path, Needed, bool], Iterator[tuple[int, Record]]]
    """The records of a file, the columns needed only (all that there are with True), each with its number from 1."""
    endings: tuple[str, ...] = ()
    """Endings of file names that tell this format, such as `.csv`."""
    pattern: str | None = None
    """A regular expression for names, in lower case, that tell this format whatever their ending."""
    counted_by: Literal["line", "record", "file"] = "record"
    """What the numbers of records count; `file` where each file is one record."""
    find: Callable[[Path, list[Path]], tuple[Files, Files]] | None = None
    """Of the files at a path, those with records, in their order, and those with the labels of these; where it is left
    out, the files with this format's endings."""
    name_part: Callable[[Path], str] = ending
    """The part of a file's name that its records depend on."""


def check_columns(file: Path, found: Iterable[str], needed: Needed, every: bool = False) -> None:
    """DataError for the first of the columns `needed` that is not `found` in `file`, or is found twice."""
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
    """`Format.read` of a format whose records all have IMAGE_COLUMNS.

    The image is uint8 [height, width, 1 or 3], the label text; images may differ in size.
    """

    def columns_of(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
        check_columns(file, IMAGE_COLUMNS, needed)
        for number, record in read(file):
            yield number, {column: record[column] for column in (IMAGE_COLUMNS if every else needed)}

    return columns_of
