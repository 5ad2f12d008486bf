"""How much training a search has left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from heliostat.tune.schedulers.base import Scheduler
from heliostat.tune.trials import Trial


@runtime_checkable
class Foresees(Protocol):
    """A scheduler that does not train every trial in full, and knows how far they are likely to come."""

    def left(self, trials: Sequence[Trial], wanted: int) -> float:
        """As `training_left`."""
        ...


def training_left(scheduler: Scheduler, trials: Sequence[Trial], wanted: int) -> float:
    """What is likely to be trained yet, in full trials: a half of one counts half.

    `wanted` is how many trials there will be. Trials that will fail are not foreseen.
    """
    if isinstance(scheduler, Foresees):
        return scheduler.left(trials, wanted)
    living = sum(1 - trial.share for trial in trials if not (trial.error or trial.stopped))
    return living + max(0, wanted - len(trials))
