"""Skips steps whose loss or gradients are NaN or infinite, and ends a run after too many in a row.

DeepSpeed, or the engine's own clipping, leaves the weights unchanged in such a step; this module counts and logs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from heliostat.infra import log
from heliostat.infra.errors import TrainingError
from heliostat.train.parallel.distributed import World

if TYPE_CHECKING:
    from heliostat.train.telemetry.stats import StepStats

NAMED = 8
"""Most records named in a message."""
_log = log.get(__name__)


class NonFiniteGuard:
    """Counts the non-finite steps of one run, in the same way on every rank."""

    def __init__(self, world: World, allowed: int, start: int = 0) -> None:
        """`allowed` steps in a row may be skipped; the next ends the run. `start` steps were done before."""
        self.world = world
        self.allowed = allowed
        self.in_a_row = 0
        self.last_good = start

    def check(self, stats: StepStats) -> None:
        """Counts the step; raises TrainingError, naming the step and its records, if too many were skipped in a row."""
        if stats.is_finite:
            self.in_a_row, self.last_good = 0, stats.step
            return
        self.in_a_row += 1
        what = self._named(stats)
        if self.in_a_row > self.allowed:
            raise TrainingError(
                f"{what}; {self.in_a_row} steps in a row, train.max_skipped_steps is {self.allowed}. The weights are "
                f"still those after step {self.last_good}. Lower train.learning_rate ({stats.learning_rate:.2g} there) "
                "or look at the records"
            )
        if self.world.is_first:
            _log.warning("%s; the step is left out", what)

    def _named(self, stats: StepStats) -> str:
        records = np.unique(np.concatenate(self.world.gather(np.array(stats.suspects, dtype=np.int64))))
        what = "loss" if not math.isfinite(stats.loss) else "gradient norm"
        value = stats.loss if what == "loss" else stats.grad_norm
        where = f" in training records {listed(records.tolist())}" if len(records) else ""
        return f"{what} is {value} at step {stats.step}{where}"


def listed(records: Sequence[int]) -> str:
    """The first few record numbers, and how many more there are."""
    named, rest = sorted(records)[:NAMED], len(records) - NAMED
    return ", ".join(map(str, named)) + (f" and {rest} more" if rest > 0 else "")
