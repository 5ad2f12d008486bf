"""Encodes table rows as numbers: standardised numbers and one-hot words, both learned from the training split."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs, number, spelled, word
from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.values import refuse_missing, unicode_text
from heliostat.train.models.bases import write_inputs

MOST_VALUES = 1000
"""Most distinct words in a column: each becomes an input of the model."""


@dataclass(frozen=True)
class TableEncoder(Encoder):
    """Encodes numbers and words of a row as `features`; duplicate rows are kept."""

    inputs: TableInputs | None = None
    """What `fit` has learned; None before."""
    labelled: bool = True
    unique: ClassVar[bool] = False

    def columns(self, data: DataConfig) -> list[str] | None:
        """The columns listed in the spec; None for all."""
        return data.columns.features

    def clean(self, record: Mapping[str, Any], data: DataConfig) -> dict[str, Any] | None:
        """The row's numbers and words; None for a row that `data.missing` drops."""
        found = {name: cell(record[name], name, data) for name in self.names(record, data)}
        missing = [name for name, value in found.items() if value is None]
        refuse_missing(missing, data, "drop and fill are")
        return None if missing and data.missing == "drop" else found

    def names(self, record: Mapping[str, Any], data: DataConfig) -> list[str]:
        """The feature columns of a record."""
        names = data.columns.features or [name for name in record if name != data.columns.label]
        unknown = [name for name in data.columns.categories if name not in names]
        if unknown or not names:
            raise DataError(
                f"data.columns.categories: {unknown[0]!r} is none of the features, {', '.join(names)}"
                if unknown
                else f"data.columns.features: there is no column but {data.columns.label!r}; one at least is needed"
            )
        return names

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """The row as JSON."""
        return json.dumps(record, ensure_ascii=False)

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> TableEncoder:
        """Learns mean and standard deviation of number columns, and the distinct words of category columns."""
        numbers: dict[str, array[float]] = {}
        words: dict[str, Counter[str]] = {}
        rows = 0
        for record in records:
            rows += 1
            for name, value in record.items():
                if name in data.columns.categories:
                    words.setdefault(name, Counter()).update([value] if value is not None else [])
                else:
                    numbers.setdefault(name, array("d")).extend([value] if value is not None else [])
        columns = [
            _category(name, words[name], rows, data)
            if name in words
            else _number(name, np.array(numbers[name]), rows, data)
            for name in record
        ]
        return replace(self, inputs=TableInputs(columns=tuple(columns)))

    def save(self, folder: Path) -> None:
        """Writes the learned columns."""
        assert self.inputs
        write_inputs(self.inputs, folder)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, np.ndarray]:
        """`features`: float32 [rows, width]."""
        assert self.inputs
        rows = [dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)]
        return {"features": np.array([self.inputs.features(row) for row in rows], dtype=np.float32)}

    def fingerprint(self) -> str:
        """Changes if columns are learned differently; what was learned depends on the data only."""
        return hashlib.sha256(b"standardised, one-hot, 3").hexdigest()


def cell(value: Any, column: str, data: DataConfig) -> float | str | None:
    """The value of a cell: a number or, for `data.columns.categories`, a word; None if it is missing."""
    if data.na_values and isinstance(value, (str, int, float)) and spelled(value) in data.na_values:
        return None
    if column in data.columns.categories:
        found = word(value, column)
        return found and unicode_text(found, column)
    try:
        return number(value, column)
    except DataError as error:
        raise DataError(f"{error}, or its name in data.columns.categories, or the word in data.na_values") from None


def _number(name: str, values: np.ndarray, rows: int, data: DataConfig) -> NumberColumn:
    if not len(values):
        raise DataError(f"column {name!r} is empty in all of the training split; leave it out of data.columns.features")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean()), float(values.std())
    if not math.isfinite(std):
        largest = f"values up to {np.abs(values).max():g}, too large for a mean and a deviation"
        raise DataError(f"column {name!r} has {largest}; scale it, or leave it out of data.columns.features")
    varies = values.min() < values.max() and std > 0  # rounding gives a constant column a deviation of 1e-17
    fill = mean if data.missing == "fill" else None
    missing = 1 - len(values) / rows
    return NumberColumn(name=name, mean=mean, std=std if varies else 1.0, fill=fill, missing=missing)


def _category(name: str, counts: Counter[str], rows: int, data: DataConfig) -> CategoryColumn:
    if not 1 <= len(counts) <= MOST_VALUES:
        raise DataError(
            f"data.columns.categories: column {name!r} has {len(counts)} different values in the training split; "
            f"1 to {MOST_VALUES} are allowed"
        )
    fill = min(counts, key=lambda value: (-counts[value], value)) if data.missing == "fill" else None
    missing = 1 - counts.total() / rows
    return CategoryColumn(name=name, values=tuple(sorted(counts)), fill=fill, missing=missing)
