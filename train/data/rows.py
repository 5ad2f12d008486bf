"""A prepared split as flat numpy views over memory-mapped Arrow: no copy, no Python object per record."""

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
    """Class names; empty where the task has none."""
    shape: tuple[int, ...] = (-1,)
    """Of the numbers of a record, as of its pixels: height, width and channels."""
    balanced: bool = False
    """Whether the classes have `weights`."""

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int32 [records]."""
        return self.table["length"].to_numpy()

    @cached_property
    def targets(self) -> np.ndarray:
        """How many outputs of each record the loss is taken on: int32 [records]."""
        return self.table["targets"].to_numpy()

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each record as an index into `labels`: int64 [records]."""
        index = pc.index_in(self.table["label"], value_set=pa.array(self.labels))
        return index.to_numpy().astype(np.int64)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """How much a record of each class counts, records / (classes x records of the class): float32 [classes].

        Then all classes count alike, and a record counts 1 on average. None where `balanced` is false.
        """
        counts = np.bincount(self.classes, minlength=len(self.labels))
        return (len(self) / (len(self.labels) * counts)).astype(np.float32) if self.balanced else None

    def matrix(self, column: str, indices: np.ndarray) -> np.ndarray:
        """What `column` holds for the records `indices`, in which all lists are of one length: [records, *shape]."""
        values, _ = self._lists(column)
        return values.reshape(len(self), *self.shape)[indices]

    def lists(self, column: str, indices: np.ndarray) -> list[np.ndarray]:
        """The lists that `column` holds for the records `indices`, without copying."""
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
