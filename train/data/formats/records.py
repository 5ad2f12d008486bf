"""Records from files: CSV, JSON lines, a JSON list, Parquet, plain text and images, each with its place in the file.

Reading is strict, so that nothing is dropped or turned into something else unseen: each failure is a
DataError that names the file, the line and what is wrong there.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.json_objects import RepeatedKeyError, distinct
from heliostat.train.data.formats.reading import COMPRESSIONS, explained, lines

ENDINGS = {
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "text": (".txt", ".text"),
    "images": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"),
}
IMAGE_FORMATS = ("images", "idx", "sheets")
IDX_NAME = r"[.-]idx\d-ubyte(\.\w+)?$"
COUNTED_BY_LINE = ("csv", "jsonl", "text", "paragraphs")
MAX_FIELD_CHARACTERS = 1 << 30
BATCH_RECORDS = 1024
SHOWN_COLUMNS = 20

Record = dict[str, Any]
Needed = Mapping[str, str]
"""Column -> the spec key that asks for it, such as `data.columns.text`."""


@dataclass(frozen=True)
class Source:
    """The files of one data source, in the order they are read in."""

    files: tuple[Path, ...]
    format: str
    beside: tuple[Path, ...] = ()
    """Files with the labels of those in `files`, where these do not hold them."""

    def place(self, file: int, number: int) -> str:
        """How an error names record `number` of file number `file`."""
        return place(self.files[file], self.format, number)

    def telling(self, file: Path) -> str:
        """What of the name of one of the files its records depend on."""
        if self.format == "images":
            return file.parent.name
        return file.name if self.format in IMAGE_FORMATS else ending(file)


def place(file: Path, format_: str, number: int) -> str:
    """How an error names record `number` of `file`."""
    if format_ == "images":
        return str(file)
    return f"{file} {'line' if format_ in COUNTED_BY_LINE else 'record'} {number}"


def find_source(path: Path, format_: str) -> Source:
    """The files at `path` (a file, or a folder with files of one format); `format_` may be `auto`.

    Raises DataError where there are none, or files of several formats, or an ending says nothing, or a name is no text.
    """
    files = [path] if path.is_file() else _visible(path)
    _refuse_names(files)
    known = {file: _format_of(file) for file in files}
    chosen = _told(path, known) if format_ == "auto" else format_
    if chosen in IMAGE_FORMATS:
        from heliostat.train.data.formats import image_files

        images, labels = image_files.find(path, files, chosen)
        return Source(images, chosen, labels)
    if not path.is_file():
        files = [file for file in files if known[file] == chosen] or files
    return Source(_some(files, path), chosen)


def _told(path: Path, known: Mapping[Path, str | None]) -> str:
    """The one format that the endings of the files tell."""
    formats = sorted({found for found in known.values() if found})
    if len(formats) == 1:
        return formats[0]
    what = f"files of several formats ({', '.join(formats)})" if formats else "no file whose ending tells its format"
    endings = " ".join(ending for group in ENDINGS.values() for ending in group)
    raise DataError(f"data.source: {path} has {what}; set data.format, or use one of {endings}")


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(_below(folder, ()))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files below `folder`, through links too; names that begin with a dot are hidden."""
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
    if re.search(IDX_NAME, file.name.lower()):
        return "idx"
    suffix = ending(file)
    return next((name for name, endings in ENDINGS.items() if suffix in endings), None)


def ending(file: Path) -> str:
    """The ending that tells the format, in lower case: `.csv` of `a.CSV.gz`; empty where there is none."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def read(file: Path, format_: str, needed: Needed, every: bool = False) -> Iterator[tuple[int, Record]]:
    """The records of `file`, the columns `needed` only, each with its number: line, or record from 1.

    With `every`, all columns that the file has, those `needed` among them.

    Raises DataError where the file cannot be read, breaks its format or lacks a column.
    """
    if format_ in IMAGE_FORMATS:
        yield from _images(file, format_, needed, every)
        return
    reader = {
        "csv": _csv,
        "jsonl": _jsonl,
        "json": _json,
        "parquet": _parquet,
        "text": _text,
        "paragraphs": _paragraphs,
    }[format_]
    with explained(file):
        yield from reader(file, needed, every)


def _images(file: Path, format_: str, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    from heliostat.train.data.formats import image_files

    check_columns(file, image_files.COLUMNS, needed)
    with explained(file):
        yield from image_files.read(file, format_, image_files.COLUMNS if every else needed)


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


def _csv(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    """All values are text, as CSV has no other; a field may hold line breaks inside quotes."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    rows = csv.reader(lines(file), delimiter="\t" if ending(file) == ".tsv" else ",", strict=True)
    header: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{file} line {line}: not CSV: {error}") from None
        if not header:
            header = [name.strip() for name in row]
            check_columns(file, header, needed, every)
            places = {column: header.index(column) for column in (header if every else needed)}
        elif len(row) == len(header):
            yield line, {column: row[place] for column, place in places.items()}
        elif row:
            raise DataError(f"{file} line {line}: {len(row)} fields; the header has {len(header)}")


def _jsonl(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    filled = ((number, line) for number, line in enumerate(lines(file), 1) if line.strip())
    values = ((number, _parsed(line, file, number)) for number, line in filled)
    yield from _picked(file, values, "jsonl", needed, every)


def _json(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    value = _parsed("".join(lines(file)), file)
    if not isinstance(value, list):
        raise DataError(f"{file}: holds one {type(value).__name__}; a JSON list of records {{...}} is needed")
    yield from _picked(file, enumerate(value, 1), "json", needed, every)


def _parquet(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as parquet:
            check_columns(file, parquet.schema_arrow.names, needed, every)
            number = 0
            for batch in parquet.iter_batches(batch_size=BATCH_RECORDS, columns=None if every else list(needed)):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pa.ArrowException as error:
        raise DataError(f"{file}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: one of records {number + 1} to {number + batch.num_rows} is not UTF-8") from None


def _text(file: Path, needed: Needed, _every: bool) -> Iterator[tuple[int, Record]]:
    """Empty lines are no records."""
    check_columns(file, ["text"], needed)
    filled = ((number, line) for number, line in enumerate(lines(file), 1) if line.strip())
    yield from ((number, {"text": line.rstrip("\r\n")}) for number, line in filled)


def _paragraphs(file: Path, needed: Needed, _every: bool) -> Iterator[tuple[int, Record]]:
    """Lines that no empty line parts are one text, which is counted by its first."""
    check_columns(file, ["text"], needed)
    held: list[str] = []
    number = 0
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            held.append(line.rstrip("\r\n"))
        elif held:
            yield number - len(held), {"text": "\n".join(held)}
            held = []
    if held:
        yield number - len(held) + 1, {"text": "\n".join(held)}


def _picked(
    file: Path, values: Iterable[tuple[int, Any]], format_: str, needed: Needed, every: bool
) -> Iterator[tuple[int, Record]]:
    """JSON values as records; a key may be missing in some of them, though not in all."""
    seen: dict[str, None] = {}
    for number, value in values:
        if not isinstance(value, dict):
            found = f"{place(file, format_, number)}: holds {type(value).__name__}"
            raise DataError(f"{found}; a record {{...}} is needed")
        seen.update(dict.fromkeys(value))
        yield number, {column: value.get(column) for column in ({**needed, **value} if every else needed)}
    if seen:
        check_columns(file, seen, needed)


def _parsed(text: str, file: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=distinct)
    except RepeatedKeyError as error:
        raise DataError(f"{file}{f' line {line}' if line else ''}: {error}") from None
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno} character {error.colno}"
        raise DataError(f"{file} {place}: not JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{file} line {line or 1}: JSON nested too deeply") from None
