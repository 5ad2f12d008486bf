"""Folders of image files, one sub-folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from heliostat.infra import log
from heliostat.infra.errors import DataError
from heliostat.infra.images import SIGNATURE_BYTES, begins_like_an_image
from heliostat.train.data.formats.base import Files, Format, Record, read_images
from heliostat.train.data.formats.reading import explained

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".webp", ".gif")
OTHER_IMAGES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".ppm", ".pgm", ".tga")
"""Suffixes of images that cannot be read: they are rejected, not left out like a README."""
SHOWN_FILES = 10
_log = log.get(__name__)


def find(path: Path, files: list[Path]) -> tuple[Files, Files]:
    """Image files in `path/CLASS/`, by their suffix or their first bytes; their labels are the folder names."""
    if not path.is_dir():
        raise DataError(f"data.source: {path} is a file; a folder with one sub-folder for each class is needed")
    for file in files:
        if file.suffix.lower() in OTHER_IMAGES:
            raise DataError(f"{file}: {file.suffix} is not read; {' '.join(ENDINGS)} are")
    images = tuple(file for file in files if file.suffix.lower() in ENDINGS or _is_image(file))
    _tell_of([file for file in files if file not in set(images)], path)
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
        raise DataError(f"data.source: {lacking} no images ({' '.join(ENDINGS)})")


def _is_image(file: Path) -> bool:
    with explained(file), file.open("rb") as stream:
        return begins_like_an_image(stream.read(SIGNATURE_BYTES))


def _tell_of(others: list[Path], path: Path) -> None:
    """Logs which files are left out as they are no images."""
    if others:
        names = ", ".join(str(file.relative_to(path)) for file in others[:SHOWN_FILES])
        more = ", ..." if len(others) > SHOWN_FILES else ""
        _log.warning("data.source: %d files of %s are no images and left out: %s%s", len(others), path, names, more)


def _read(file: Path) -> Iterator[tuple[int, Record]]:
    yield 1, {"image": file.read_bytes(), "label": file.parent.name}


IMAGES = Format(read_images(_read), ENDINGS, counted_by="file", find=find, name_part=lambda file: file.parent.name)
