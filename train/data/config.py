"""The `data` section of a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Fraction, Positive
from heliostat.train.data.filter import parse

if TYPE_CHECKING:
    pass


class Columns(StrictModel):
    """Which column of the input holds what."""

    text: str = "text"
    """The text; for plain-text `causal-lm` too."""
    label: str | None = "label"
    """The class; null where an `image-generation` is to know of none."""
    features: Annotated[list[str], Field(min_length=1)] | None = None
    """`tabular-classification`: what the model sees; all columns but the label's where left out."""
    categories: list[str] = []
    """`tabular-classification`: those among them that hold words; the others hold numbers."""
    image: str = "image"
    """`image-classification` and `image-generation`: the image."""
    messages: str | None = None
    """`causal-lm`: a list of {role, content} records."""
    prompt: str | None = None
    """`causal-lm`: the instruction; with `answer`."""
    context: str | None = None
    """`causal-lm`: further input, put after the prompt where it is not empty."""
    answer: str | None = None
    """`causal-lm`: the reply that the loss is taken on."""

    @model_validator(mode="after")
    def _is_one_chat(self) -> Columns:
        if (self.prompt is None) != (self.answer is None) or (self.context and not self.prompt):
            raise ValueError("data.columns: prompt and answer go together, and context goes with both")
        if self.messages and self.prompt:
            raise ValueError("data.columns: messages and prompt given; one of the two says what a chat is")
        return self

    @model_validator(mode="after")
    def _hides_the_label(self) -> Columns:
        if self.features and self.label in self.features:
            raise ValueError(
                f"data.columns.features: {self.label!r} given, which is data.columns.label; the model must not see it"
            )
        return self


class Split(StrictModel):
    """Shares of the records held out; which record goes where depends on what it holds alone."""

    validation: Fraction = 0.1
    test: Fraction = 0.1
    stratify: bool = False
    """Whether each class is split in these shares exactly; else all records together are, and about so."""

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"data.split: validation {self.validation} + test {self.test} leaves nothing to train on; "
                "their sum must be below 1"
            )
        return self


class ImageSize(StrictModel):
    """What all images of a data set have in common."""

    height: Positive | None = None
    """Pixels; those of the first image where left out."""
    width: Positive | None = None
    mode: Literal["auto", "rgb", "grey"] = "auto"
    """`auto`: the mode of the first image; coloured ones are refused after a grey one. Grey images are grey in all
    channels of `rgb`; coloured ones, in `grey`, as bright as they look (ITU-R BT.601)."""
    resize: bool = False
    """Whether images of another size are resized; they are refused otherwise."""


class Augment(StrictModel):
    """Random changes to the images of each step of training."""

    crop: Annotated[int, Field(ge=0)] = 0
    """Pixels that an image is moved by at most, up or down and to a side."""
    flip: bool = False
    """Whether half of them are mirrored, left and right."""
    erase: Annotated[int, Field(ge=0)] = 0
    """The side of a square that is blanked out (DeVries and Taylor 2017, cutout)."""


class DataConfig(StrictModel):
    """The records, and how they become numbers."""

    source: str
    """A file, or a folder of files of one format, at a path, `dataset:`, `pkg:`, `pypi:`, `npm:`, `hf:` or `s3://`.

    A path counts from the working directory, or from the folder of the spec where it begins with `./` or `../`.
    """
    format: Literal["auto", "csv", "jsonl", "json", "parquet", "text", "paragraphs", "images", "idx", "sheets"] = "auto"
    """`auto` goes by the names of the files. `paragraphs`: texts that empty lines part; `images`: one sub-folder for
    each class; `idx`: MNIST's; `sheets`: PNG files of which each row is an image, with JSON lists of their labels."""
    where: str | None = None
    """Keep the records for which this is true, such as `source == 'imdb'`."""
    columns: Columns = Columns()
    label_names: dict[str, str] = {}
    """What the labels are called in answers, such as `{"0": negative, "1": positive}`; others stay as they are."""
    split: Split = Split()
    limit: Positive | None = None
    """Keep this many records at most, the same ones each time."""
    missing: Literal["fail", "drop", "fill"] = "fail"
    """What happens to a record with a value missing: an error, it is left out, or, in tables, the training split's mean
    (of numbers) or most frequent value (of words) stands in, in requests too. `fill` leaves out a row without a
    label, for which nothing stands in."""
    na_values: list[str] = []
    """Words that say that a value of a table, or a label, is missing, such as `[NA, "?"]`; an empty cell, null and NaN
    always do."""
    images: ImageSize = ImageSize()
    augment: Augment = Augment()
    max_length: Annotated[int, Field(ge=4)] = 256
    """Tokens a record may have."""
    vocabulary: Annotated[int, Field(ge=16)] = 20_000
    """Words at most, or pieces of words, of a tokenizer that is learned: for models that are built here."""
    overflow: Literal["truncate", "fail"] = "truncate"
    """What happens to a record longer than `max_length`."""

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, expression: str | None) -> str | None:
        if expression is not None:
            parse(expression)
        return expression


SPLITS = ("train", "validation", "test")
