"""The reference of a published model: how its training split, and its answers to the test split, fall into bins.

Training writes it into the bundle as `drift.json`, and replicas count into the same bins. It holds counts and bounds of
bins, and no record. At most MOST_COLUMNS columns of the input with at most MOST_BINS bins each are in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heliostat.infra.config.strict import StrictModel, build

if TYPE_CHECKING:
    import numpy as np

FILE = "drift.json"
"""Next to the model's description."""
LABEL, SCORE = "prediction.label", "prediction.score"
"""Columns of the answers: the likeliest label, and its probability."""
MOST_COLUMNS = 50
QUANTILES = 10
"""Most bins of a number between which its values are split evenly; a frequent value gets one more of its own."""
ROWS_PER_BIN = 30
"""Of a smaller sample there are fewer bins, so that none is mostly chance."""
MOST_BINS = 20
CATEGORIES = MOST_BINS - 3
"""Most categories with a bin of their own: the most frequent ones."""
UNSEEN = -1.0
"""Stands for a category that the training split does not have; NaN stands for a missing value."""


class NumberBins(StrictModel):
    """A column of numbers: bins between `edges`, and one for missing values."""

    kind: Literal["number"] = "number"
    name: str
    edges: tuple[float, ...]
    """Ascending; halfway between values of the sample, so that rounding moves no value to another bin."""
    counts: tuple[int, ...]
    """Records of the sample in each bin; the last one is for missing values."""

    def bins(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value; NaN is missing. int64 [values]."""
        import numpy as np

        found = np.searchsorted(np.asarray(self.edges), values, side="right")
        return np.where(np.isnan(values), len(self.edges) + 1, found)


class CategoryBins(StrictModel):
    """A column of categories: bins of the frequent ones, all others, what was never seen, and what is missing."""

    kind: Literal["category"] = "category"
    name: str
    categories: tuple[int, ...]
    """Indices of the categories with a bin of their own, ascending."""
    counts: tuple[int, ...]
    """Records of the sample in each bin; the last three are those of the others, the unseen and the missing."""

    def bins(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value: an index of a category, UNSEEN, or NaN. int64 [values]."""
        import numpy as np

        own, categories = len(self.categories), np.asarray(self.categories)
        at = np.searchsorted(categories, values).clip(max=own - 1)
        found = np.where(categories[at] == values, at, own)
        return np.where(np.isnan(values), own + 2, np.where(values == UNSEEN, own + 1, found))


Column = NumberBins | CategoryBins


class Reference(StrictModel):
    """What replicas compare with."""

    version: Literal[1] = 1
    columns: tuple[Column, ...]
    left_out: int = 0
    """Columns of the input beyond MOST_COLUMNS."""
    common_tokens: tuple[int, ...] = ()
    """Of texts: the most frequent tokens of the training split."""

    @cached_property
    def size(self) -> int:
        """Bins of all columns."""
        return sum(len(column.counts) for column in self.columns)

    def counted(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """How many values fall into each bin, column by column: int64 [size]. Columns without values count nothing."""
        import numpy as np

        parts = [
            np.bincount(column.bins(values[column.name]), minlength=len(column.counts))
            if column.name in values
            else np.zeros(len(column.counts), np.int64)
            for column in self.columns
        ]
        return np.concatenate(parts)

    def split(self, counts: np.ndarray) -> list[np.ndarray]:
        """`counts` [size] by column."""
        import numpy as np

        return np.split(counts, np.cumsum([len(column.counts) for column in self.columns])[:-1])


def number_bins(name: str, values: np.ndarray) -> NumberBins:
    """Bins with about equally many of `values` each; NaN is missing."""
    import numpy as np

    there = values[~np.isnan(values)].astype(np.float64)
    edges = _edges(there, int(np.clip(len(there) // ROWS_PER_BIN, 2, QUANTILES))) if len(there) else np.zeros(1)
    empty = NumberBins(name=name, edges=tuple(edges.tolist()), counts=(0,) * (len(edges) + 2))
    return empty.model_copy(update={"counts": _counts(empty, values)})


def category_bins(name: str, values: np.ndarray) -> CategoryBins:
    """Bins of the most frequent of `values`, which are indices of categories; NaN is missing."""
    import numpy as np

    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    frequent = np.sort(found[np.argsort(-counts, kind="stable")[:CATEGORIES]])
    categories = tuple(frequent.astype(int).tolist()) or (0,)
    empty = CategoryBins(name=name, categories=categories, counts=(0,) * (len(categories) + 3))
    return empty.model_copy(update={"counts": _counts(empty, values)})


def _counts(column: NumberBins | CategoryBins, values: np.ndarray) -> tuple[int, ...]:
    import numpy as np

    return tuple(np.bincount(column.bins(values), minlength=len(column.counts)).tolist())


def _edges(values: np.ndarray, most: int) -> np.ndarray:
    """Edges at quantiles of `values`, and on both sides of a value that fills a bin alone.

    A constant has three bins: its own, and those below and above it, which are empty.
    """
    import numpy as np

    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        margin = 1e-3 * max(1.0, abs(float(distinct[0])))
        return np.array([distinct[0] - margin, distinct[0] + margin])
    between = (distinct[:-1] + distinct[1:]) / 2
    if len(distinct) <= most:
        return between
    shares = counts.cumsum() / len(values)
    after = np.searchsorted(shares, np.arange(1, most) / most)
    before = after[counts[after] * most >= len(values)] - 1
    at = np.unique([*before, *after])
    return between[at[(at >= 0) & (at < len(between))]]


def write_reference(folder: Path, reference: Reference) -> None:
    """Writes the reference into the folder of a bundle."""
    (folder / FILE).write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_reference(folder: Path) -> Reference | None:
    """The reference in the folder of a bundle; None if it was published without."""
    file = folder / FILE
    return build(Reference, json.loads(file.read_text("utf-8")), source=str(file)) if file.is_file() else None


def bounded(names: Sequence[str]) -> list[str]:
    """The columns of an input that are counted: the first MOST_COLUMNS."""
    return [name for name in names if name not in (LABEL, SCORE)][:MOST_COLUMNS]
