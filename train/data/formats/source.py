"""Finds the files of a data source and reads their records, each with its position in its file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.base import Needed, Record, ending
from heliostat.train.data.formats.catalog import FORMATS
from heliostat.train.data.formats.reading import explained


@dataclass(frozen=True)
class Source:
    """The files of one data source, in reading order."""

    files: tuple[Path, ...]
    format: str
    label_files: tuple[Path, ...] = ()
    """Files with the labels of `files`, if these do not hold the labels themselves."""

    def place(self, file: int, number: int) -> str:
        """The name of record `number` of file number `file` in error messages."""
        return place(self.files[file], self.format, number)

    @property
    def is_file_each(self) -> bool:
        """Whether each file is one record."""
        return FORMATS[self.format].counted_by == "file"

    def name_part(self, file: Path) -> str:
        """The part of the file's name that affects its records."""
        return FORMATS[self.format].name_part(file)


def place(file: Path, format_: str, number: int) -> str:
    """The name of record `number` of `file` in error messages."""
    unit = FORMATS[format_].counted_by
    return str(file) if unit == "file" else f"{file} {unit} {number}"


def find_source(path: Path, format_: str) -> Source:
    """The files at `path` (a file, or a folder with files of one format); `format_` may be `auto`.

    Raises DataError if there are none, if they have several formats or no known suffix, or if a name is not UTF-8.
    """
    files = [path] if path.is_file() else _visible(path)
    _refuse_names(files)
    known = {file: _format_of(file) for file in files}
    chosen = _told(path, known) if format_ == "auto" else format_
    if find := FORMATS[chosen].find:
        found, labels = find(path, files)
        return Source(found, chosen, labels)
    if not path.is_file():
        files = [file for file in files if known[file] == chosen] or files
    return Source(_some(files, path), chosen)


def _told(path: Path, known: Mapping[Path, str | None]) -> str:
    """The one format that the suffixes of the files indicate."""
    formats = sorted({found for found in known.values() if found})
    if len(formats) == 1:
        return formats[0]
    what = f"files of several formats ({', '.join(formats)})" if formats else "no file whose ending tells its format"
    endings = " ".join(ending for one in FORMATS.values() for ending in one.endings)
    raise DataError(f"data.source: {path} has {what}; set data.format, or use one of {endings}")


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(_below(folder, ()))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files below `folder`, following links; skips names that begin with a dot."""
    real = folder.resolve()
    if real in above:
        raise DataError(f"data.source: {folder} is a link to a folder that it lies in itself, {real}")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _below(Path(entry.path), (*above, real))
            elif entry.is_file():
                yield Path(entry.path)
            elif entry.is_symlink():
                raise DataError(f"data.source: {entry.path} is a link to {os.readlink(entry.path)}, which is not there")


def _refuse_names(files: list[Path]) -> None:
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise DataError(f"data.source: {str(file)!a} is a name that is not UTF-8; rename it") from None


def _some(files: list[Path], path: Path) -> tuple[Path, ...]:
    if not files:
        raise DataError(f"data.source: {path} holds no files")
    return tuple(files)


def _format_of(file: Path) -> str | None:
    name, suffix = file.name.lower(), ending(file)
    by_pattern = (key for key, one in FORMATS.items() if one.pattern and re.search(one.pattern, name))
    by_ending = (key for key, one in FORMATS.items() if suffix in one.endings)
    return next(by_pattern, None) or next(by_ending, None)


def read(
    file: Path, format_: str, needed: Needed, every: bool = False, quoting: str = "auto"
) -> Iterator[tuple[int, Record]]:
    """Yields the records of `file`, only the columns `needed`, each with its number: the line, or the record from 1.

    With `every`, all columns that the file has, including those `needed`.

    Raises DataError if the file cannot be read, is malformed or lacks a column, or if the format has no such `quoting`.
    """
    one = FORMATS[format_]
    if quoting != "auto" and quoting not in one.by_quoting:
        having = " and ".join(name for name, other in FORMATS.items() if other.by_quoting)
        raise DataError(f"data.quoting: {quoting} given, and the files are {format_}; it is for {having}")
    with explained(file):
        yield from one.by_quoting.get(quoting, one.read)(file, needed, every)
