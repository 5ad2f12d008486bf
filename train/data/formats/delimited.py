"""CSV and TSV: a header, then one record per row.

In CSV, a field in quotes may hold separators and line breaks (RFC 4180). TSV knows no quotes: they are characters of
the text (https://www.iana.org/assignments/media-types/text/tab-separated-values). `data.quoting` says otherwise.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.base import Format, Needed, NotedRecord, Record, check_columns, ending
from heliostat.train.data.formats.reading import lines

MAX_FIELD_CHARACTERS = 1 << 30
LONG_FIELD_CHARACTERS = 1 << 16
"""A field that is longer is told of: a quote that nothing closes takes in the rows after it."""
QUOTE = '"'


def read(file: Path, needed: Needed, every: bool, quoted: bool | None = None) -> Iterator[tuple[int, Record]]:
    """All values are text; whether quotes enclose fields follows from the file's ending unless `quoted` says it."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    tabs = ending(file) == ".tsv"
    quoted = not tabs if quoted is None else quoted
    delimiter = "\t" if tabs else ","
    if quoted:
        rows = csv.reader(lines(file), delimiter=delimiter, strict=True)
    else:
        rows = csv.reader(lines(file), delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
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
            record = {column: row[place] for column, place in places.items()}
            note = _note(row, rows.line_num + 1 - line, quoted)
            yield line, NotedRecord(record, note) if note else record
        elif row:
            raise DataError(f"{file} line {line}: {len(row)} fields; the header has {len(header)}{_hint(row, quoted)}")


def _note(row: Sequence[str], lines_: int, quoted: bool) -> str | None:
    """What is unusual about the quotes of a row that takes `lines_` lines of its file."""
    if quoted and lines_ > 1:
        return (
            f"a quoted field holds line breaks; where quotes are characters, set data.quoting to none ({lines_} lines)"
        )
    if quoted and any(len(field) > LONG_FIELD_CHARACTERS for field in row):
        longest = max(map(len, row))
        return (
            f"a field is unusually long; where quotes are characters, set data.quoting to none ({longest} characters)"
        )
    if not quoted and any(_is_enclosed(field) for field in row):
        return "quotes around a field are taken as a part of it; where they are not, set data.quoting to csv"
    return None


def _is_enclosed(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == QUOTE


def _hint(row: Sequence[str], quoted: bool) -> str:
    opened = any(field.startswith(QUOTE) for field in row)
    return "; where quotes enclose fields, set data.quoting to csv" if opened and not quoted else ""


CSV = Format(
    read,
    (".csv", ".tsv"),
    counted_by="line",
    by_quoting={"csv": partial(read, quoted=True), "none": partial(read, quoted=False)},
)
