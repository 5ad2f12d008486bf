"""JSON Lines, and files with one JSON list: each value is a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.json_objects import RepeatedKeyError, distinct
from heliostat.train.data.formats.base import Format, Needed, Record, check_columns
from heliostat.train.data.formats.reading import lines


def read_lines(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    """Reads one value per line; skips empty lines."""
    filled = ((number, line) for number, line in enumerate(lines(file), 1) if line.strip())
    values = ((number, _parsed(line, file, number)) for number, line in filled)
    yield from _picked(file, values, "line", needed, every)


def read_list(file: Path, needed: Needed, every: bool) -> Iterator[tuple[int, Record]]:
    """Reads the values of one list, which is held in memory."""
    value = _parsed("".join(lines(file)), file)
    if not isinstance(value, list):
        raise DataError(f"{file}: holds one {type(value).__name__}; a JSON list of records {{...}} is needed")
    yield from _picked(file, enumerate(value, 1), "record", needed, every)


def _picked(
    file: Path, values: Iterable[tuple[int, Any]], unit: str, needed: Needed, every: bool
) -> Iterator[tuple[int, Record]]:
    """JSON values as records; a key may be missing in some records, but not in all."""
    seen: dict[str, None] = {}
    for number, value in values:
        if not isinstance(value, dict):
            found = f"{file} {unit} {number}: holds {type(value).__name__}"
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


JSON_LINES = Format(read_lines, (".jsonl", ".ndjson"), counted_by="line")
JSON_LIST = Format(read_list, (".json",))
