"""Records from images: folders of image files, IDX files, and sheets whose rows of pixels are one image each.

Each record is `{"image": uint8 [height, width, 1 or 3], "label": text}`; images may differ in size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.images import decode
from heliostat.train.data.formats import idx, sheets
from heliostat.train.data.formats.records import ENDINGS

COLUMNS = ("image", "label")
IMAGES = ENDINGS["images"]
OTHER_IMAGES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".ppm", ".pgm", ".tga")
"""Endings of images that are not read: such a file would otherwise be left out as a README is."""
Files = tuple[Path, ...]


def find(path: Path, files: list[Path], format_: str) -> tuple[Files, Files]:
    """Of the `files` at `path`, those with images, in the order they are read in, and those with their labels.

    Raises DataError where there are none, or an image has no label for what lies there.
    """
    return _FINDERS[format_](path, files)


def read(file: Path, format_: str, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The `columns` of the records of one file that `find` found, each with its number, from 1."""
    for number, record in _READERS[format_](file):
        yield number, {column: record[column] for column in columns}


def _find_images(path: Path, files: list[Path]) -> tuple[Files, Files]:
    """Image files in `path/CLASS/`; their labels are the names of the folders."""
    if not path.is_dir():
        raise DataError(f"data.source: {path} is a file; a folder with one sub-folder for each class is needed")
    for file in files:
        if file.suffix.lower() in OTHER_IMAGES:
            raise DataError(f"{file}: {file.suffix} is not read; {' '.join(IMAGES)} are")
    images = tuple(file for file in files if file.suffix.lower() in IMAGES)
    for file in images:
        if file.parent.parent != path:
            raise DataError(f"{file}: images must lie in sub-folders of {path}, whose names are their classes")
    _refuse_empty_classes(path, images)
    return images, ()


def _refuse_empty_classes(path: Path, images: Files) -> None:
    filled = {file.parent for file in images}
    empty = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    empty = [entry for entry in empty if entry not in filled]
    if empty or not filled:
        lacking = f"{empty[0]} holds" if empty else f"{path} has sub-folders with"
        raise DataError(f"data.source: {lacking} no images ({' '.join(IMAGES)})")


def _read_image(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    yield 1, {"image": decode(file.read_bytes(), "own", str(file)), "label": file.parent.name}


_FINDERS: dict[str, Callable[[Path, list[Path]], tuple[Files, Files]]] = {
    "images": _find_images,
    "idx": idx.find,
    "sheets": sheets.find,
}
_READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]] = {
    "images": _read_image,
    "idx": idx.read,
    "sheets": sheets.read,
}
