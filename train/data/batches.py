"""The order of training records: a plan that depends on the seed only, not on the world size.

A run can therefore resume with another world size and train on the same global batches in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class BatchPlan:
    """Global batches of records of similar length, and how they are divided among ranks.

    `lengths` (tokens) and `weights` (number of loss targets) have one number per record.
    """

    def __init__(
        self, lengths: np.ndarray, weights: np.ndarray, global_batch_size: int, seed: int, bucket: int = 50
    ) -> None:
        """Records are sorted by length within windows of `bucket` global batches.

        Raises ValueError if there are no records, the arrays differ in length, or a size is below 1.
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
        """The global batches of epoch `epoch` (from 0), int64 [batch] each: every record exactly once."""
        if self._last[0] != epoch:
            self._last = (epoch, self._shuffled(epoch))
        return self._last[1]

    def at(self, step: int) -> np.ndarray:
        """The global batch of optimizer step `step` (from 0, counted over all epochs): int64 [batch]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self.epoch(epoch)[position]

    def targets(self, batch: np.ndarray) -> int:
        """Number of targets in `batch`, by which its summed loss is divided."""
        return int(self.weights[batch].sum())

    def accumulation(self, world: int, micro: int) -> int:
        """Gradient accumulation steps: micro-batches per rank and step, of at most `micro` records each."""
        return accumulation(self.global_batch_size, world, micro)

    def micro_batches(self, batch: np.ndarray, rank: int, world: int, micro: int) -> list[np.ndarray]:
        """The share of `rank` in a global batch: `accumulation(world, micro)` arrays of at most `micro` records.

        Records of similar length share a micro-batch, and at each micro-step all ranks have about the same number of
        tokens. The shares of all ranks add up to the batch. Some arrays are empty if the batch is short.
        """
        order = batch[np.argsort(-self.lengths[batch], kind="stable")]
        deal = np.arange(world * micro)
        turn, place = np.divmod(deal, world)
        mine = np.where(turn % 2 == 0, place, world - 1 - place) == rank  # in snake order
        starts = range(0, self.accumulation(world, micro) * world * micro, world * micro)
        parts = [order[start : start + world * micro] for start in starts]
        return [part[mine[: len(part)]] for part in parts]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        # The short last batch is drawn before sorting; cut off afterwards, it would always hold the longest records.
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
    """Micro-batches per rank for a global batch on `world` ranks, with at most `micro` records each."""
    return -(-global_batch_size // (world * micro))


def pad(rows: Sequence[np.ndarray], value: int, multiple: int = 8) -> np.ndarray:
    """`rows` as one array, padded with `value`: int64 [rows, columns].

    The width is that of the longest row, rounded up to a multiple of `multiple`, for which kernels are fastest.
    """
    longest = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), max(-(-longest // multiple), 1) * multiple), value, dtype=np.int64)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = row
    return table
