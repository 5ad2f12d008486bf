"""CSV and TSV: a header, then one record per row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from heliostat.infra.errors import DataError
from heliostat.train.data.formats.base import Format, Needed, Record, check_columns, ending
from heliostat.train.data.formats.reading import lines

MAX_FIELD_CHARACTERS = 1 << 30


def read(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    """All values are text, as in CSV; a quoted field may hold line breaks."""
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


CSV = Format(read, (".csv", ".tsv"), counted_by="line")
