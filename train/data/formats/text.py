"""Plain text: one record per line or per paragraph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from heliostat.train.data.formats.base import Format, Needed, Record, check_columns
from heliostat.train.data.formats.reading import lines


def read_lines(file: Path, needed: Needed, _every: bool) -> Iterator[tuple[int, Record]]:
    """Reads one record per line; skips empty lines."""
    check_columns(file, ["text"], needed)
    filled = ((number, line) for number, line in enumerate(lines(file), 1) if line.strip())
    yield from ((number, {"text": line.rstrip("\r\n")}) for number, line in filled)


def read_paragraphs(file: Path, needed: Needed, _every: bool) -> Iterator[tuple[int, Record]]:
    """Reads one record per block of non-empty lines, numbered by the block's first line."""
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


LINES = Format(read_lines, (".txt", ".text"), counted_by="line")
PARAGRAPHS = Format(read_paragraphs, counted_by="line")
