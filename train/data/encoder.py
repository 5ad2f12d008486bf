"""What turns records into numbers, whichever task asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from heliostat.train.data.config import DataConfig
from heliostat.train.data.values import clean_texts

if TYPE_CHECKING:
    pass


Progress = Callable[[str, int, int], None]
"""Told the stage (`read`, `tokenize`, `publish`), the records done, and those in all (0: not known)."""


class Encoder(ABC):
    """What turns records into numbers; each task has one.

    It travels to Ray workers, so it must pickle, and it may load what is heavy only when it is first asked.
    """

    unique: ClassVar[bool] = True
    """Whether of records that are the same only the first stays."""
    fewest_classes: ClassVar[int] = 2
    """Classes that there must be, where records have one."""
    labelled: bool
    """Whether each record has a class, in `data.columns.label`; it stays a word, in the column `label`."""

    @abstractmethod
    def columns(self, data: DataConfig) -> list[str] | None:
        """The columns that a record must have, but for the label's; None for all that there are."""

    def clean(self, record: Mapping[str, Any], data: DataConfig) -> dict[str, Any] | None:
        """What is kept of a record, as JSON can say it; None where something is missing, DataError where it is wrong.

        The columns are those of `columns`.
        """
        return clean_texts(record, self.columns(data) or (), data)

    @abstractmethod
    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """What makes two clean records the same, and decides which split a record goes to."""

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> Encoder:
        """The encoder once it has learned what it must from the clean records of the training split."""
        return self

    def save(self, folder: Path) -> None:  # noqa: B027  # most have nothing to write
        """Writes what `fit` has learned beside the prepared data, for the model and for serving."""

    @abstractmethod
    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, Any]:
        """Columns of many clean records to columns of `encode.VALUES`.

        Those of texts are `input_ids`, and `labels` of equal length where tokens are targets. Lists may be longer than
        `data.max_length`: `prepare` counts these and cuts off their ends. An encoder that cuts in another way, say to
        keep a closing token, adds `full_length`, the tokens before the cut.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the same record would become other numbers."""
