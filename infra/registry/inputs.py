"""Inputs of models that are not Hugging Face models: fitted on the training split, published with the model.

Training and serving both encode records and requests here, so that they do it in the same way.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

SHOWN_VALUES = 20
LARGEST = 3.4e38
"""About the largest float32 number."""
PIXELS_OF_ANY_MODEL = 1 << 22
"""2,048 x 2,048: what a file may have, however small the model's images are."""
PIXELS_PER_PIXEL = 64
"""How many times more pixels than the model's image a file may have: eight times as many on each side."""
Row = Mapping[str, Any]
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+", re.ASCII)
"""A whole number with decimals; one that begins with a zero, such as a postcode, is no number."""


class NumberColumn(StrictModel):
    """A column of numbers, standardised: (x - mean) / std."""

    kind: Literal["number"] = "number"
    name: str
    mean: float
    """Over the training split, of the values that are there."""
    std: float
    """The standard deviation there; 1 where all values are the same."""
    fill: float | None = None
    """What stands for a missing value; None where it is refused."""
    missing: float = 0.0
    """Share of the training split's values that were missing."""

    @property
    def width(self) -> int:
        """Number of features per value."""
        return 1

    def numbers(self, value: Any) -> list[float]:
        """`value` as the model takes it: float [1]. Raises DataError if it is not a number."""
        found = _filled(number(value, self.name), self.fill, self.name)
        standardised = (found - self.mean) / self.std
        if abs(standardised) > LARGEST:
            needed = "a number that 32 bits can hold, once it is standardised, is needed"
            raise DataError(f"{self.name}: {found:g} given; {needed}")
        return [standardised]

    def value(self, numbers: list[float]) -> float:
        """The inverse of `numbers`."""
        return numbers[0] * self.std + self.mean


class CategoryColumn(StrictModel):
    """A column of words, one-hot."""

    kind: Literal["category"] = "category"
    name: str
    values: tuple[str, ...]
    """Those of the training split, sorted."""
    fill: str | None = None
    """What stands for a missing value; None where it is refused."""
    missing: float = 0.0
    """Share of the training split's values that were missing."""

    @property
    def width(self) -> int:
        """Number of features per value."""
        return len(self.values)

    def numbers(self, value: Any) -> list[float]:
        """`value` as the model takes it: float [values]. Raises DataError for one that is not in the training split."""
        found = _filled(word(value, self.name), self.fill, self.name)
        known = same_word(found, self.values)
        if known is None:
            more = ", ..." if len(self.values) > SHOWN_VALUES else ""
            listed = ", ".join(self.values[:SHOWN_VALUES]) + more
            raise DataError(f"{self.name}: {found[:60]!r} was not in the training data; {listed} were")
        return [float(one == known) for one in self.values]

    def value(self, numbers: list[float]) -> str:
        """The inverse of `numbers`."""
        return self.values[max(range(len(numbers)), key=numbers.__getitem__)]


class TableInputs(StrictModel):
    """Rows of named columns. The model takes `features`: float32 [rows, width]."""

    kind: Literal["table"] = "table"
    columns: tuple[NumberColumn | CategoryColumn, ...]

    @property
    def width(self) -> int:
        """Number of features per row."""
        return sum(column.width for column in self.columns)

    def features(self, row: Row) -> list[float]:
        """The row as the model takes it: float [width].

        Raises DataError for an unknown or missing column, or an invalid value.
        """
        names = [column.name for column in self.columns]
        for name in row:
            if name not in names:
                raise DataError(f"{name}: no such column; {', '.join(names)} are allowed")
        return [value for column in self.columns for value in column.numbers(row.get(column.name))]

    def row(self, features: list[float]) -> dict[str, float | str]:
        """The inverse of `features`."""
        rest = list(features)
        found = {}
        for column in self.columns:
            found[column.name] = column.value(rest[: column.width])
            del rest[: column.width]
        return found


class ImageInputs(StrictModel):
    """Images of one size. The model takes `pixels`: uint8 [images, height, width, channels]."""

    kind: Literal["image"] = "image"
    height: int
    width: int
    mode: Literal["rgb", "grey"]
    to_grey: bool = False
    """Whether a coloured image is made grey, where grey is needed; it is refused otherwise."""
    resize: bool = False
    """Whether an image of another size is resized; it is refused otherwise."""
    mean: tuple[float, ...]
    """Of each channel over the training split, as a share of 255; the model itself takes it off."""
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, len(self.mean)

    def pixels(self, data: bytes, what: str) -> np.ndarray:
        """The image file as the model takes it: uint8 [height, width, channels]; raises DataError if it is refused.

        One of a size that the model does not take is refused before a pixel is decoded.
        """
        from heliostat.infra.images import decode

        return self.fitted(decode(data, "own", what, check_size=self.check_size), what)

    def check_size(self, width: int, height: int) -> None:
        """Raises DataError for an image file of another size or, if images are resized, of far too many pixels.

        An image that lies on its side passes: how it is to be rotated may stand behind its pixels.
        """
        if not self.resize:
            if sorted((width, height)) != sorted((self.width, self.height)):
                raise DataError(f"{width} x {height} pixels; {self.width} x {self.height} are needed")
        elif width * height > self.most_pixels:
            raise DataError(f"{width} x {height} pixels; {self.most_pixels:,} in all are allowed for this model")

    @property
    def most_pixels(self) -> int:
        """Pixels that a file may have, where images are resized: decoding costs by them, whatever the model's size."""
        return max(PIXELS_OF_ANY_MODEL, PIXELS_PER_PIXEL * self.width * self.height)

    def fitted(self, pixels: np.ndarray, what: str) -> np.ndarray:
        """The decoded image in the model's mode and size; raises DataError if it may not be converted."""
        from heliostat.infra.images import in_mode, is_coloured, resized

        if self.mode == "grey" and not self.to_grey and is_coloured(pixels):
            raise DataError(f"{what}: a coloured image; a grey one is needed")
        pixels = in_mode(pixels, self.mode)
        if pixels.shape == self.shape:
            return pixels
        if self.resize:
            return resized(pixels, self.height, self.width)
        height, width = pixels.shape[:2]
        raise DataError(f"{what}: {width} x {height} pixels; {self.width} x {self.height} are needed")


class TextInputs(StrictModel):
    """Texts. The model takes `input_ids` and `attention_mask`: int64 [texts, length], of the tokenizer beside it."""

    kind: Literal["text"] = "text"
    length: int
    """Tokens of a text with its padding, always: an LSTM is exported for one length."""
    pad_id: int
    unknown_id: int
    """What stands for a text without a single token."""
    vocabulary: int
    """Tokens that there are, padding included."""

    def padded(self, texts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Token ids as the model takes them, cut or padded to `length`; an empty text becomes the unknown token."""
        import torch

        ids = torch.full((len(texts), self.length), self.pad_id)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            kept = torch.as_tensor(text[: self.length] or [self.unknown_id])
            ids[row, : len(kept)], mask[row, : len(kept)] = kept, 1
        return {"input_ids": ids, "attention_mask": mask}


class NoiseInputs(StrictModel):
    """Numbers drawn from a normal distribution. The model takes `noise`: float32 [images, size]."""

    kind: Literal["noise"] = "noise"
    size: int
    classes: int = 1
    """The largest of so many numbers, the first ones, says an image's class: each is as likely as the others."""

    def noise(self, seed: int, count: int, wanted: int | None = None) -> torch.Tensor:
        """Noise for `count` images: float32 [count, size]; a smaller `count` gives the first images of a larger one.

        If a class is `wanted`, its number is swapped with the largest.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        found = torch.stack([torch.randn(self.size, generator=generator) for _ in range(count)])
        if wanted is not None:
            images, largest = torch.arange(count), self.classes_of(found)
            found[images, largest], found[:, wanted] = found[:, wanted].clone(), found[images, largest].clone()
        return found

    def classes_of(self, noise: torch.Tensor) -> torch.Tensor:
        """The class of each image generated from `noise` [images, size]: int64 [images]."""
        return noise[:, : self.classes].argmax(dim=1)


Inputs = TableInputs | ImageInputs | TextInputs | NoiseInputs


def number(value: Any, column: str) -> float | None:
    """A cell of a number column; None if it is missing. Raises DataError if it is not a number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float(value) if _may_be_a_number(value) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or math.isinf(found):
        raise DataError(f"{column}: {repr(value)[:60]} given; a finite number is needed")
    return None if math.isnan(found) else found


def _may_be_a_number(value: Any) -> bool:
    if isinstance(value, str):
        return "_" not in value  # Python alone accepts underscores in numbers
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def word(value: Any, column: str) -> str | None:
    """A cell of a category column; None if it is missing. Raises DataError if it is neither text nor a number."""
    try:
        return spelled(value)
    except TypeError:
        raise DataError(f"{column}: {repr(value)[:60]} given; text or a number is needed") from None


def spelled(value: Any) -> str | None:
    """A cell as a word, the same for every file format; None if it is missing. Raises TypeError for other types.

    `NaN` counts as missing, as programs write it for a missing value.
    """
    if is_missing(value):
        return None
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, Decimal):
        value = format(value.normalize(), "f")
    if isinstance(value, (str, bool, int, float, Decimal)):
        found = one_spelling(str(value).strip())
        return None if found in ("", "NaN", "nan") else found
    raise TypeError(f"{type(value).__name__} is no word")


def one_spelling(text: str) -> str:
    """`text` as it is spelled everywhere: `1` for `1.0`, `true` for `True`, and Unicode's NFC.

    CSV, JSON and Parquet hold the same label as text, a number or a truth value, and systems compose accents or not.
    """
    if text.lower() in ("true", "false"):
        return text.lower()
    if whole := _WHOLE.fullmatch(text):
        return str(int(whole[1]))
    return unicodedata.normalize("NFC", text)


def same_word(given: str, words: Sequence[str]) -> str | None:
    """The one of `words` that `given` is, in whatever spelling; None if there is none."""
    return next((one for one in words if one == given), None) or next(
        (one for one in words if one_spelling(one) == one_spelling(given.strip())), None
    )


def is_missing(value: Any) -> bool:
    """Whether a cell is null or NaN."""
    return value is None or (isinstance(value, (float, Decimal)) and math.isnan(value))


def image_bytes(text: str, what: str) -> bytes:
    """Decodes a base64 text, with or without `data:image/png;base64,` before it; raises DataError if invalid."""
    _, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{what}: not base64") from None


def _filled(value: Any, fill: Any, column: str) -> Any:
    if value is None and fill is None:
        raise DataError(f"{column}: missing; a value is needed")
    return fill if value is None else value
