"""The `data` section of a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Fraction, Positive
from heliostat.infra.registry.inputs import one_spelling, spelled
from heliostat.train.data.filter import parse


class Columns(StrictModel):
    """The input columns by their role."""

    text: str = "text"
    """The text; for plain-text `causal-lm` too."""
    label: str | None = "label"
    """The class; null if an `image-generation` model should not use classes."""
    features: Annotated[list[str], Field(min_length=1)] | None = None
    """`tabular-classification`: the model's inputs; all columns except the label's if omitted."""
    categories: list[str] = []
    """`tabular-classification`: the features that hold words; the others hold numbers."""
    image: str = "image"
    """`image-classification` and `image-generation`: the image."""
    messages: str | None = None
    """`causal-lm`: a list of {role, content} records; `weight: 0` in an answer's keeps it from being learned."""
    tools: str | None = None
    """`causal-lm`: the definitions of the tools that `messages` may call, for the chat template."""
    prompt: str | None = None
    """`causal-lm`: the instruction; with `answer`."""
    context: str | None = None
    """`causal-lm`: further input, appended to the prompt if it is not empty."""
    answer: str | None = None
    """`causal-lm`: the reply, which the loss is computed on."""

    @model_validator(mode="after")
    def _is_one_chat(self) -> Columns:
        if (self.prompt is None) != (self.answer is None) or (self.context and not self.prompt):
            raise ValueError("data.columns: prompt and answer go together, and context goes with both")
        if self.messages and self.prompt:
            raise ValueError("data.columns: messages and prompt given; one of the two says what a chat is")
        if self.tools and not self.messages:
            raise ValueError("data.columns.tools: given without messages, which they belong to")
        return self

    @model_validator(mode="after")
    def _hides_the_label(self) -> Columns:
        if self.features and self.label in self.features:
            raise ValueError(
                f"data.columns.features: {self.label!r} given, which is data.columns.label; the model must not see it"
            )
        return self


def is_chat(columns: Columns) -> bool:
    """Whether records are chats, not plain texts."""
    return bool(columns.messages or (columns.prompt and columns.answer))


class Split(StrictModel):
    """Shares of the records held out; the split of a record depends on its content only."""

    validation: Fraction = 0.1
    test: Fraction = 0.1
    stratify: bool = False
    """`true`: each class is split in exactly these shares; else the shares hold approximately, over all records."""

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"data.split: validation {self.validation} + test {self.test} leaves nothing to train on; "
                "their sum must be below 1"
            )
        return self


class ImageSize(StrictModel):
    """Size and mode of all images of a data set."""

    height: Positive | None = None
    """Pixels; those of the first image if omitted."""
    width: Positive | None = None
    mode: Literal["auto", "rgb", "grey"] = "auto"
    """`auto`: the mode of the first image; colour images are rejected after a grey one. In `rgb`, grey images get three
    equal channels; in `grey`, colour images are converted by their luminance (ITU-R BT.601)."""
    resize: bool = False
    """Whether to resize images of another size; otherwise they are rejected."""


class Augment(StrictModel):
    """Random changes to the images of each training step."""

    crop: Annotated[int, Field(ge=0)] = 0
    """Largest shift of an image in pixels, vertically and horizontally."""
    flip: bool = False
    """Whether to mirror half of the images horizontally."""
    erase: Annotated[int, Field(ge=0)] = 0
    """Side of a square that is blanked out, in pixels (DeVries and Taylor 2017, cutout)."""


class DataConfig(StrictModel):
    """The records, and how they are encoded."""

    source: str
    """A file, or a folder of files of one format, at a path, `dataset:`, `pkg:`, `pypi:`, `npm:`, `hf:` or `s3://`.

    A path is relative to the working directory, or to the spec's folder if it begins with `./` or `../`.
    """
    format: Literal["auto", "csv", "jsonl", "json", "parquet", "text", "paragraphs", "images", "idx", "sheets"] = "auto"
    """`auto`: by the file names. `paragraphs`: texts separated by empty lines; `images`: one sub-folder per class;
    `idx`: MNIST's format; `sheets`: PNG files in which each row is an image, with JSON lists of the labels."""
    quoting: Literal["auto", "csv", "none"] = "auto"
    """`csv`: quotes enclose a field of a CSV or TSV file; `none`: they are characters; `auto`: `none` for `.tsv` files,
    `csv` for others."""
    where: str | None = None
    """Keep only the records for which this expression is true, such as `source == 'imdb'`."""
    columns: Columns = Columns()
    label_names: dict[str, str] = {}
    """Names of labels in answers, such as `{"0": negative, "1": positive}`; other labels keep theirs."""
    split: Split = Split()
    limit: Positive | None = None
    """Keep at most this many records, always the same ones."""
    missing: Literal["fail", "drop", "fill"] = "fail"
    """What to do with a record that lacks a value, or whose image is damaged: `fail` raises an error, `drop` leaves it
    out and counts it, `fill` (for tables) uses the training split's mean (numbers) or most frequent value (words), in
    requests too. `fill` drops rows without a label."""
    na_values: list[str] = []
    """Words that mark a value of a table, or a label, as missing, such as `[NA, "?"]`; an empty cell, null and NaN
    always do."""
    images: ImageSize = ImageSize()
    augment: Augment = Augment()
    max_length: Annotated[int, Field(ge=4)] = 256
    """Maximum length of a record, in tokens."""
    vocabulary: Annotated[int, Field(ge=16)] = 20_000
    """Largest vocabulary of a learned tokenizer, in words or subwords; for models that are built here."""
    max_unknown: Fraction = 0.1
    """Largest share of tokens that may stand for text that the model's tokenizer does not know."""
    overflow: Literal["auto", "truncate", "split", "fail"] = "auto"
    """What to do with a record longer than `max_length`; `split`, for `causal-lm` on plain text, makes several of it,
    in which each token is learned once. `auto`: `split` there, `truncate` elsewhere."""
    stride: Positive | None = None
    """Tokens from one part of a split record to the next, below `max_length`; three quarters of it if omitted. What
    they share is context, and not learned again."""

    @field_validator("label_names")
    @classmethod
    def _spelled(cls, names: dict[str, str]) -> dict[str, str]:
        """Labels and names as records spell them; refuses two keys that are one label."""
        found = {spelled(label) or label: one_spelling(name) for label, name in names.items()}
        if len(found) < len(names):
            twice = next(label for label in names if sum(spelled(label) == spelled(other) for other in names) > 1)
            raise ValueError(f"data.label_names: {twice!r} given twice, in two spellings")
        return found

    @field_validator("na_values")
    @classmethod
    def _words(cls, words: list[str]) -> list[str]:
        return [spelled(word) or word for word in words]

    @model_validator(mode="after")
    def _overlaps(self) -> DataConfig:
        if self.stride and self.stride >= self.max_length:
            raise ValueError(
                f"data.stride: {self.stride} given; less than data.max_length, {self.max_length}, is allowed"
            )
        return self

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, expression: str | None) -> str | None:
        if expression is not None:
            parse(expression)
        return expression


SPLITS = ("train", "validation", "test")
