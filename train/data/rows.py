"""A prepared split as flat numpy views of memory-mapped Arrow: no copies, no Python object per record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Rows:
    """The records of one split."""

    table: pa.Table
    labels: tuple[str, ...]
    """Class names; empty if the task has none."""
    shape: tuple[int, ...] = (-1,)
    """Shape of a record's numbers, such as height, width and channels of its pixels."""
    balanced: bool = False
    """Whether `weights` balances the classes."""

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int32 [records]."""
        return self.table["length"].to_numpy()

    @cached_property
    def targets(self) -> np.ndarray:
        """Number of loss targets of each record: int32 [records]."""
        return self.table["targets"].to_numpy()

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each record as an index into `labels`: int64 [records]."""
        index = pc.index_in(self.table["label"], value_set=pa.array(self.labels))
        return index.to_numpy().astype(np.int64)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """The loss weight of each class, records / (classes x records of the class): float32 [classes].

        All classes then count equally, and the mean weight of a record is 1. None if `balanced` is false.
        """
        counts = np.bincount(self.classes, minlength=len(self.labels))
        return (len(self) / (len(self.labels) * counts)).astype(np.float32) if self.balanced else None

    def matrix(self, column: str, indices: np.ndarray) -> np.ndarray:
        """The values of `column` for the records `indices`, whose lists all have the same length: [records, *shape]."""
        values, _ = self._lists(column)
        return values.reshape(len(self), *self.shape)[indices]

    def lists(self, column: str, indices: np.ndarray) -> list[np.ndarray]:
        """The lists in `column` for the records `indices`, without copying."""
        values, offsets = self._lists(column)
        return [values[offsets[i] : offsets[i + 1]] for i in indices]

    def _lists(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        if column not in self._flat:
            array = self.table[column].combine_chunks()
            array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
            self._flat[column] = (array.values.to_numpy(), array.offsets.to_numpy())
        return self._flat[column]

    @cached_property
    def _flat(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {}
