"""Steps whose loss or gradients are no numbers: left out, and, where they go on, the end of a run.

DeepSpeed, or the engine's own clipping, leaves the weights as they were in such a step; here it is counted and named.
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
"""Records that a message names at most."""
_log = log.get(__name__)


class NonFinite:
    """Watches one run, on every rank alike."""

    def __init__(self, world: World, allowed: int, start: int = 0) -> None:
        """`allowed` steps in a row may be left out; the next ends the run. `start` steps were done before."""
        self.world = world
        self.allowed = allowed
        self.in_a_row = 0
        self.last_good = start

    def check(self, stats: StepStats) -> None:
        """Counts the step; TrainingError, naming it and the records it met, where it is one too many."""
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
    """The first few, and how many more."""
    named, rest = sorted(records)[:NAMED], len(records) - NAMED
    return ", ".join(map(str, named)) + (f" and {rest} more" if rest > 0 else "")
