"""IDX files, MNIST's format: one file with images and one with their labels; either may be compressed.

Four bytes give the type of the values and the number of dimensions, then four bytes per dimension its size; the values
follow (http://yann.lecun.com/exdb/mnist). Files of images and labels belong together if their names differ only in
`images` and `labels`: train-images-idx3-ubyte and train-labels-idx1-ubyte.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from heliostat.infra.errors import DataError
from heliostat.infra.images import MAX_PIXELS
from heliostat.train.data.formats.base import Files, Format, Record, read_images
from heliostat.train.data.formats.reading import COMPRESSIONS, opened

NAME = r"[.-]idx\d-ubyte(\.\w+)?$"
UNSIGNED_BYTES = 8
CHANNELS = (1, 3)


def find(path: Path, files: list[Path]) -> tuple[Files, Files]:
    """The image files among `files`, and the files with their labels, in the same order."""
    images = tuple(file for file in files if _holds(file, "images"))
    if not images:
        raise DataError(f"data.source: {path} holds no IDX file with images; *images* in its name is needed")
    labels = tuple(_labels(file) for file in images)
    for file in files:
        if _holds(file, "labels") and file not in labels:
            raise DataError(f"{file}: labels without images; a file such as {_named(file, 'images')} is needed")
    return images, labels


def read(file: Path) -> Iterator[tuple[int, Record]]:
    """The images of `file`, uint8 [height, width, channels], with their labels as text."""
    with opened(file) as images, opened(_labels(file)) as labels:
        count, *shape = _sizes(images, file, (3, 4))
        (labelled,) = _sizes(labels, _labels(file), (1,))
        if labelled != count:
            raise DataError(f"{file}: {count} images; {_labels(file).name} holds {labelled} labels")
        height, width, channels = _shape(file, shape)
        for number in range(1, count + 1):
            values = _exactly(images, height * width * channels, f"{file} record {number}")
            (label,) = _exactly(labels, 1, f"{_labels(file)} record {number}")
            image = np.frombuffer(values, dtype=np.uint8).reshape(height, width, channels)
            yield number, {"image": image.copy(), "label": str(label)}
        for stream, name in ((images, file), (labels, _labels(file))):
            if stream.read(1):
                raise DataError(f"{name}: bytes after the {count} that its header tells of")


def write(folder: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes `images`, uint8 [images, height, width], and `labels`, uint8 [images], to two files."""
    for what, values in (("images", images), ("labels", labels)):
        header = struct.pack(f">BBBB{values.ndim}I", 0, 0, UNSIGNED_BYTES, values.ndim, *values.shape)
        content = header + values.astype(np.uint8).tobytes()
        (folder / f"{name}-{what}-idx{values.ndim}-ubyte").write_bytes(content)


def _holds(file: Path, what: str) -> bool:
    other = {"images": "labels", "labels": "images"}[what]
    return what in file.name.lower() and other not in file.name.lower()


def _labels(images: Path) -> Path:
    """The file with the labels of `images`, in the same folder."""
    beside = sorted(path for path in images.parent.iterdir() if path.is_file() and _holds(path, "labels"))
    same = [path for path in beside if _pair(path) == _pair(images)]
    if len(same) == 1:
        return same[0]
    found = ", ".join(path.name for path in same or beside) or "none"
    raise DataError(f"{images}: one file with its labels is needed, such as {_named(images, 'labels')}; {found} found")


def _named(file: Path, what: str) -> str:
    """An example name for the counterpart of `file` that holds `what`."""
    return re.sub(
        r"images|labels", what, re.sub(r"idx\d", {"images": "idx3", "labels": "idx1"}[what], file.name.lower())
    )


def _pair(file: Path) -> str:
    """The part of the name that image and label files share."""
    name = file.name.lower()
    name = name.removesuffix(file.suffix.lower()) if file.suffix.lower() in COMPRESSIONS else name
    return re.sub(r"idx\d", "idx", re.sub(r"images|labels", "*", name))


def _sizes(stream: BinaryIO, file: Path, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    """The size of each dimension. Raises DataError unless the header declares bytes in one of `dimensions`."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTES or magic[3] not in dimensions:
        allowed = " or ".join(f"{UNSIGNED_BYTES << 8 | number:08x}" for number in dimensions)
        raise DataError(f"{file}: begins with {magic.hex() or 'nothing'}; {allowed} is needed (IDX, unsigned bytes)")
    return struct.unpack(f">{magic[3]}I", _exactly(stream, 4 * magic[3], str(file)))


def _shape(file: Path, sizes: list[int]) -> tuple[int, int, int]:
    height, width, channels = (*sizes, 1)[:3]
    if not 0 < math.prod(sizes) <= MAX_PIXELS or channels not in CHANNELS:
        shape = " x ".join(map(str, sizes))
        raise DataError(f"{file}: images of {shape}; 1 to {MAX_PIXELS:,} pixels with 1 or 3 channels are allowed")
    return height, width, channels


def _exactly(stream: BinaryIO, count: int, what: str) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise DataError(f"{what}: the file ends there; its header tells of more")
    return found


IDX = Format(read_images(read), find=find, pattern=NAME, name_part=lambda file: file.name)
