"""Asynchronous successive halving with promotion.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: "A System for Massively Parallel Hyperparameter
Tuning", 2020, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import Ladder, rungs
from heliostat.tune.trials import Begin, Continue, Trial


class Asha:
    """Promotes whoever is in the top 1/eta of a rung, from the highest rung down; else begins a new trial."""

    def __init__(self, settings: Settings) -> None:
        self._ladder = Ladder(rungs(settings.grace, settings.eta), settings.objectives, settings.eta)

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        if found := self._ladder.decide(trials):
            return found
        if may_begin:
            return Begin(self._ladder.rungs[0])
        return self._ladder.finish(trials)  # with fewer than eta trials at a rung nobody is in its top 1/eta

    def left(self, trials: Sequence[Trial], wanted: int) -> float:
        """As `training_left`."""
        return self._ladder.left(trials, wanted) if wanted or trials else 0.0
