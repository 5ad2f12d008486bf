"""Sheets: PNG files in which each row of pixels is one square image, as CIFAR-10 is often distributed.

A row holds the values of its image row by row, the channels of a pixel next to each other. The labels are JSON lists in
files named *label*, for all rows of the sheets that a list belongs to, in the order of their names. A list belongs to
the sheets whose names begin with the same word (test_batch.png, test_labels.json), or to those without such a list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.images import decode
from heliostat.train.data.formats.base import Files, Format, Record, read_images

HEADER_BYTES = 24
SHEET_NAME = r"\.png$"
LIST_NAME = r"lab(el|le).*\.json$"
"""Includes the misspelling in CIFAR-10's package."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def find(path: Path, files: list[Path]) -> tuple[Files, Files]:
    """The sheets among `files`, and the lists of their labels."""
    if not path.is_dir():
        raise DataError(f"data.source: {path} is a file; a folder with sheets and the lists of their labels is needed")
    sheets = tuple(sorted((file for file in files if re.search(SHEET_NAME, file.name.lower())), key=_order))
    if not sheets:
        raise DataError(f"data.source: {path} holds no sheets (.png)")
    lists = tuple(dict.fromkeys(_list_of(sheet) for sheet in sheets))
    for file in files:
        if re.search(LIST_NAME, file.name.lower()) and file not in lists:
            raise DataError(f"{file}: labels without a sheet; a .png file whose name begins alike is needed beside it")
    return sheets, lists


def read(file: Path) -> Iterator[tuple[int, Record]]:
    """The images of a sheet, uint8 [side, side, 1 or 3], with their labels as text."""
    labels = _labels(file)
    values = decode(file.read_bytes(), "own", str(file))
    rows, width, channels = values.shape
    shape = _shape(file, width, channels)
    for row in range(rows):
        yield row + 1, {"image": values[row].reshape(shape).copy(), "label": labels[row]}


def _labels(sheet: Path) -> list[str]:
    """The labels of the rows of `sheet`: its part of the list that it shares with other sheets."""
    belongs = _list_of(sheet)
    group = [other for other in _beside(sheet, SHEET_NAME) if _list_of(other) == belongs]
    rows = {other: _rows(other) for other in group}
    labels = _parsed(belongs)
    if len(labels) != sum(rows.values()):
        names = ", ".join(other.name for other in group)
        raise DataError(f"{belongs}: {len(labels)} labels; {names} hold {sum(rows.values())} rows")
    first = sum(rows[other] for other in group[: group.index(sheet)])
    return [_label(value, belongs, first + at) for at, value in enumerate(labels[first : first + rows[sheet]], 1)]


def _label(value: Any, file: Path, number: int) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise DataError(f"{file} record {number}: {repr(value)[:60]} given; a whole number or text is needed")
    return str(value)


def _parsed(file: Path) -> list[Any]:
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(found, list):
        raise DataError(f"{file}: holds one {type(found).__name__}; a JSON list of labels is needed")
    return found


def _list_of(sheet: Path) -> Path:
    """The list with the labels of `sheet`, in the same folder."""
    lists = _beside(sheet, LIST_NAME)
    words = {_word(other) for other in _beside(sheet, SHEET_NAME)}
    same = [file for file in lists if _word(file) == _word(sheet)]
    found = same or [file for file in lists if _word(file) not in words]
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found or lists) or "none"
    raise DataError(f"{sheet}: one list of its labels is needed, such as {_word(sheet)}_labels.json; {names} found")


def _beside(sheet: Path, pattern: str) -> list[Path]:
    """The files beside `sheet` that match `pattern`, sorted by `_order`."""
    files = (path for path in sheet.parent.iterdir() if re.search(pattern, path.name.lower()))
    return sorted((path for path in files if not path.name.startswith(".")), key=_order)


def _word(file: Path) -> str:
    return re.split(r"[^a-z]", file.stem.lower())[0]


def _order(file: Path) -> tuple[Path, list[tuple[int, str]]]:
    """Sort key that compares digits in names as numbers: batch_2 before batch_10."""
    parts = re.findall(r"\d+|\D+", file.name)
    return file.parent, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _rows(sheet: Path) -> int:
    """The number of pixel rows of a PNG file, from its header."""
    with sheet.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(SIGNATURE):
        raise DataError(f"{sheet}: not a PNG file")
    return int.from_bytes(header[20:24], "big")


def _shape(sheet: Path, width: int, channels: int) -> tuple[int, int, int]:
    """Height, width and channels of the square image in a row; a row of grey values may hold three per pixel."""
    for depth in {channels, 3}:
        side = math.isqrt(width * channels // depth)
        if side * side * depth == width * channels:
            return side, side, depth
    raise DataError(f"{sheet}: rows of {width} x {channels} values, which are no square image")


SHEETS = Format(read_images(read), find=find, name_part=lambda file: file.name)
