"""The interface of encoders, which turn records into numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from heliostat.train.data.config import DataConfig
from heliostat.train.data.values import clean_texts

Progress = Callable[[str, int, int], None]
"""Called with the stage (`read`, `tokenize`, `publish`), the records done and the total (0 if unknown)."""


class Encoder(ABC):
    """Turns records into numbers; each task has one.

    It is sent to Ray workers, so it must be picklable; it should load heavy dependencies only when first used.
    """

    unique: ClassVar[bool] = True
    """Whether duplicate records are dropped."""
    fewest_classes: ClassVar[int] = 2
    """Fewest classes allowed, if records have classes."""
    unknown_id: int | None = None
    """The token that stands for what the tokenizer does not know; None if there is none."""
    labelled: bool
    """Whether each record has a class, in `data.columns.label`; it is kept as text, in the column `label`."""

    @abstractmethod
    def columns(self, data: DataConfig) -> list[str] | None:
        """The columns that a record must have, without the label's; None for all columns that the input has."""

    def clean(self, record: Mapping[str, Any], data: DataConfig) -> dict[str, Any] | None:
        """What to keep of a record, as JSON-compatible values; None if a value is missing, DataError if one is wrong.

        A DamagedError leaves the record out where `data.missing` is `drop`.
        `record` has the columns of `columns`.
        """
        return clean_texts(record, self.columns(data) or (), data)

    @abstractmethod
    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """A string that identifies a clean record: equal strings are duplicates, and it decides the split."""

    def is_running_text(self, data: DataConfig) -> bool:
        """Whether all tokens of a record are learned one after another, so that a part of it is a record too."""
        return False

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> Encoder:
        """The encoder fitted on the clean records of the training split."""
        return self

    def save(self, folder: Path) -> None:  # noqa: B027  # most have nothing to write
        """Writes what `fit` has learned beside the prepared data, for training and serving."""

    @abstractmethod
    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, Any]:
        """Encodes columns of clean records into columns of `encode.VALUES`.

        For texts these are `input_ids` and, if tokens are targets, `labels` of equal length. Lists may be longer than
        `data.max_length`: `prepare` counts and truncates or splits them. An encoder that truncates by itself, say to
        keep a closing token, adds `full_length`, the number of tokens before truncation.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes if the same record would be encoded differently."""
