"""Which records make up which step: a plan that depends on the seed alone, never on the number of workers.

A run can therefore resume on another world size and meet the same global batches in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class BatchPlan:
    """Global batches of records of similar length, and their parts for each rank.

    `lengths` (tokens) and `weights` (targets that the loss is taken on) have one number per record.
    """

    def __init__(
        self, lengths: np.ndarray, weights: np.ndarray, global_batch_size: int, seed: int, bucket: int = 50
    ) -> None:
        """Records are sorted by length within `bucket` global batches at a time.

        Raises ValueError where there are no records, or sizes do not fit together.
        """
        if len(lengths) == 0 or len(lengths) != len(weights):
            raise ValueError(f"{len(lengths)} lengths and {len(weights)} weights; one of each per record is needed")
        if global_batch_size < 1 or bucket < 1:
            raise ValueError(f"global_batch_size {global_batch_size} and bucket {bucket} must be 1 or more")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.weights = np.asarray(weights, dtype=np.int64)
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.bucket = bucket
        self._last: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in one pass over all records; the last one may be short."""
        return -(-len(self.lengths) // self.global_batch_size)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of pass `epoch` (from 0), int64 [batch] each: every record exactly once."""
        if self._last[0] != epoch:
            self._last = (epoch, self._shuffled(epoch))
        return self._last[1]

    def at(self, step: int) -> np.ndarray:
        """The global batch of optimizer step `step` (from 0, counted over all epochs): int64 [batch]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[position]

    def targets(self, batch: np.ndarray) -> int:
        """Targets in `batch`: what a loss summed over it is divided by."""
        return int(self.weights[batch].sum())

    def accumulation(self, world: int, micro: int) -> int:
        """Micro-batches per rank and step, for `world` ranks with at most `micro` records in each."""
        return accumulation(self.global_batch_size, world, micro)

    def micro_batches(self, batch: np.ndarray, rank: int, world: int, micro: int) -> list[np.ndarray]:
        """The share of `rank` in a global batch: `accumulation(world, micro)` arrays of `micro` at most.

        Records of like length meet in one micro-batch, and at each micro-step all ranks have about as many
        tokens. All shares together are the batch. Some arrays are empty where the batch is short.
        """
        order = batch[np.argsort(-self.lengths[batch], kind="stable")]
        deal = np.arange(world * micro)
        turn, place = np.divmod(deal, world)
        mine = np.where(turn % 2 == 0, place, world - 1 - place) == rank  # to and fro: the longest goes to no one twice
        starts = range(0, self.accumulation(world, micro) * world * micro, world * micro)
        parts = [order[start : start + world * micro] for start in starts]
        return [part[mine[: len(part)]] for part in parts]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        # The short batch is drawn before sorting: cut off after it, it would always hold the longest.
        full = len(order) // self.global_batch_size * self.global_batch_size
        window = self.bucket * self.global_batch_size
        batches: list[np.ndarray] = []
        for start in range(0, full, window):
            part = order[start : min(start + window, full)]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += np.split(part, len(part) // self.global_batch_size)
        batches = [batches[i] for i in random.permutation(len(batches))]
        return batches + ([order[full:]] if full < len(order) else [])


def accumulation(global_batch_size: int, world: int, micro: int) -> int:
    """Passes of each of `world` ranks that hold the global batch, with at most `micro` records in each."""
    return -(-global_batch_size // (world * micro))


def pad(rows: Sequence[np.ndarray], value: int, multiple: int = 8) -> np.ndarray:
    """`rows` side by side, filled up with `value`: int64 [rows, columns].

    Columns are the longest row's, rounded up to a multiple of `multiple`: kernels are fastest there.
    """
    longest = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), max(-(-longest // multiple), 1) * multiple), value, dtype=np.int64)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = row
    return table
