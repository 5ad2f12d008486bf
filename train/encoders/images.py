"""Encodes images as pixels of one size; learns mean and standard deviation per channel from the training split."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heliostat.infra.errors import DamagedError, DataError
from heliostat.infra.images import Mode, decode, in_mode
from heliostat.infra.registry.inputs import ImageInputs, image_bytes
from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.values import refuse_missing
from heliostat.train.models.bases import write_inputs

IMAGE = "image"


@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """Encodes images as `pixels`."""

    inputs: ImageInputs | None = None
    """What `fit` has learned; None before."""
    labelled: bool = True

    def columns(self, data: DataConfig) -> list[str]:
        """The column that a record must have."""
        return [data.columns.image]

    def clean(self, record: Mapping[str, Any], data: DataConfig) -> dict[str, Any] | None:
        """The image as text, `height width channels base64`; None for a record that `data.missing` drops.

        Raises DamagedError if it is not an image.
        """
        mode: Mode = "own" if data.images.mode == "auto" else data.images.mode
        try:
            pixels = decoded(record[data.columns.image], data.columns.image, mode)
        except DataError as error:
            raise DamagedError(str(error)) from None
        refuse_missing([data.columns.image] if pixels is None else [], data)
        return None if pixels is None else {IMAGE: as_text(pixels)}

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """A hash of the pixels."""
        return hashlib.sha256(record[IMAGE].encode()).hexdigest()

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> ImageEncoder:
        """Learns the size from the first image if the spec has none, and mean and deviation of each channel."""
        inputs: ImageInputs | None = None
        count, sums, squares = 0, np.zeros(1, np.int64), np.zeros(1, np.int64)
        for record in records:
            pixels = from_text(record[IMAGE])
            inputs = inputs or _first(pixels, data)
            with suppress(DataError):  # images that do not fit are reported with their position when all are encoded
                numbers = inputs.fitted(pixels, IMAGE).reshape(-1, inputs.shape[2]).astype(np.int64)
                count += len(numbers)
                sums, squares = sums + numbers.sum(axis=0), squares + (numbers**2).sum(axis=0)
        assert inputs
        found = [_mean_and_std(count, *pair) for pair in zip(sums.tolist(), squares.tolist(), strict=True)]
        mean, std = zip(*found, strict=True)
        return replace(self, inputs=inputs.model_copy(update={"mean": mean, "std": std}))

    def save(self, folder: Path) -> None:
        """Writes the size, the means and the standard deviations."""
        assert self.inputs
        write_inputs(self.inputs, folder)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, np.ndarray]:
        """`pixels`: uint8 [images, height x width x channels]."""
        assert self.inputs
        try:
            found = [self.inputs.fitted(from_text(text), IMAGE).reshape(-1) for text in records[IMAGE]]
        except DataError as error:
            raise DataError(f"{error}; data.images says which mode and size, and whether to resize") from None
        return {"pixels": np.stack(found)}

    def fingerprint(self) -> str:
        """Changes if images are read differently; what was learned depends on the data only."""
        return hashlib.sha256(b"pixels, 2").hexdigest()


def decoded(value: Any, column: str, mode: Mode) -> np.ndarray | None:
    """Decodes the image in a cell: pixels, the bytes of a file (also as Parquet image columns hold them), or base64.

    None if it is missing. Raises DataError if it is not an image.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return None
    if isinstance(value, str):
        value = image_bytes(value, column)
    if isinstance(value, bytes):
        return decode(value, mode, column)
    if not isinstance(value, np.ndarray):
        raise DataError(f"data.columns.image: column {column!r} holds {type(value).__name__}; an image file is needed")
    return in_mode(value, mode)


def as_text(pixels: np.ndarray) -> str:
    """Serialises uint8 [height, width, channels] as JSON-compatible text."""
    return " ".join([*map(str, pixels.shape), base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()])


def from_text(text: str) -> np.ndarray:
    """Inverse of `as_text`."""
    *shape, numbers = text.split(" ")
    return np.frombuffer(base64.b64decode(numbers), dtype=np.uint8).reshape([int(side) for side in shape])


def _mean_and_std(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and standard deviation of `count` values, as fractions of 255; the latter is 1 if all values are equal.

    Computed in integers to the end: rounding would give a constant channel a deviation of 1e-9.
    """
    return total / (255 * count), math.sqrt(count * squares - total**2) / (255 * count) or 1.0


def _first(pixels: np.ndarray, data: DataConfig) -> ImageInputs:
    height, width, channels = pixels.shape
    wanted = data.images
    return ImageInputs(
        height=wanted.height or height,
        width=wanted.width or width,
        mode="grey" if channels == 1 else "rgb",
        to_grey=wanted.mode == "grey",
        resize=wanted.resize,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
