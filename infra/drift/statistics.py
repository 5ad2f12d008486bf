"""What is counted of an input: the same few numbers of a record of the training split and of a request.

`kept` is what has to be kept of an input until it is counted, and `values` gives the columns of many of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from heliostat.infra.drift.reference import bounded

if TYPE_CHECKING:
    import numpy as np

    from heliostat.infra.registry.inputs import TableInputs

COMMON_TOKENS = 256
SIDE = 32
"""Pixels of an image are counted on a grid of at most about twice so many rows and columns."""


class Statistics(Protocol):
    """The statistics of a kind of input."""

    categories: frozenset[str]
    """Columns whose values are indices of categories; the others are numbers."""
    left_out: int
    """Columns that are not counted."""

    def kept(self, item: Any) -> Any:
        """What is kept of an input in the form that the model takes."""
        ...

    def values(self, kept: Sequence[Any]) -> dict[str, np.ndarray]:
        """The values of each column: float64 [inputs]."""
        ...


class TableStatistics:
    """The columns of a table themselves, as the model takes them: standardised numbers, and indices of words."""

    def __init__(self, inputs: TableInputs) -> None:
        names = bounded([column.name for column in inputs.columns])
        self.left_out = len(inputs.columns) - len(names)
        self.categories = frozenset(
            column.name for column in inputs.columns if column.kind == "category" and column.name in names
        )
        self.inputs = inputs
        self._places: list[tuple[str, slice]] = []
        at = 0
        for column in inputs.columns:
            if column.name in names:
                self._places.append((column.name, slice(at, at + column.width)))
            at += column.width

    def kept(self, item: Any) -> Any:
        """The features: float [width]."""
        return item

    def values(self, kept: Sequence[Any] | np.ndarray) -> dict[str, np.ndarray]:
        """Of features [rows, width]."""
        import numpy as np

        features = np.asarray(kept, dtype=np.float32)
        return {name: self._column(name, features[:, place]) for name, place in self._places}

    def with_missing(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`values` of the training split, in which missing cells were filled: as many of these as were missing are NaN.

        Which of them it was does not matter for counts.
        """
        import numpy as np

        for column in self.inputs.columns:
            if column.name not in values or column.fill is None:
                continue
            found = values[column.name]
            numbers = np.asarray(column.numbers(None), dtype=np.float32)[None]
            filled = np.flatnonzero(found == self._column(column.name, numbers)[0])
            found[filled[: round(column.missing * len(found))]] = np.nan
        return values

    def _column(self, name: str, features: np.ndarray) -> np.ndarray:
        import numpy as np

        found = features.argmax(axis=1) if name in self.categories else features[:, 0]
        return found.astype(np.float64)


class TextStatistics:
    """Of a text, without regard to its language: tokens, and which share of them is unknown, and which is common.

    Another language, another subject or another spelling changes the share of the tokens that were the most frequent
    ones in training.
    """

    names = ("length", "unknown_share", "common_share")
    categories: frozenset[str] = frozenset()
    left_out = 0

    def __init__(self, unknown_id: int | None, common: Iterable[int]) -> None:
        self.unknown_id = unknown_id
        self.common = frozenset(common)

    def kept(self, item: Sequence[int]) -> tuple[float, float, float]:
        """The statistics of one text, given as token ids."""
        count = max(1, len(item))
        common = sum(map(self.common.__contains__, item))
        return float(len(item)), list(item).count(self.unknown_id) / count, common / count  # type: ignore[arg-type]

    def values(self, kept: Sequence[tuple[float, float, float]]) -> dict[str, np.ndarray]:
        """By name: float64 [texts]."""
        return _columns(self.names, kept)


class ImageStatistics:
    """Of an image in the model's size: mean and standard deviation of its pixels, as shares of full brightness."""

    names = ("brightness", "contrast")
    categories: frozenset[str] = frozenset()
    left_out = 0

    def kept(self, item: np.ndarray) -> tuple[float, float]:
        """The statistics of one image: uint8 [height, width, channels]; of a grid of its pixels, which is faster."""
        height, width = (max(1, side // SIDE) for side in item.shape[:2])
        grid = item[::height, ::width]
        return float(grid.mean()) / 255, float(grid.std()) / 255

    def values(self, kept: Sequence[tuple[float, float]]) -> dict[str, np.ndarray]:
        """By name: float64 [images]."""
        return _columns(self.names, kept)


def common_tokens(texts: Iterable[np.ndarray]) -> tuple[int, ...]:
    """The COMMON_TOKENS most frequent tokens, ascending."""
    import numpy as np

    counts = np.bincount(np.concatenate(list(texts)))
    frequent = np.argsort(-counts, kind="stable")[:COMMON_TOKENS]
    return tuple(sorted(int(token) for token in frequent if counts[token]))


def _columns(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    import numpy as np

    return dict(zip(names, np.asarray(rows, dtype=np.float64).reshape(-1, len(names)).T, strict=True))
