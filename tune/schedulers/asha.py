"""Asynchronous successive halving with promotion.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: "A System for Massively Parallel Hyperparameter
Tuning", 2020, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import between_rungs, last_resort, next_rung, promotion, rungs
from heliostat.tune.trials import Begin, Continue, Trial


@dataclass(frozen=True)
class Asha:
    """Promotes whoever is in the top 1/eta of a rung, from the highest rung down; else begins a new trial."""

    settings: Settings

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        objectives, ladder = self.settings.objectives, rungs(self.settings.grace, self.settings.eta)
        found = between_rungs(trials, ladder, objectives) or promotion(trials, ladder, objectives, self.settings.eta)
        if found:
            return found
        if may_begin:
            return Begin(ladder[0])
        # With fewer than eta trials at a rung nobody is in its top 1/eta.
        last = last_resort(trials, objectives)
        return Continue(last.number, next_rung(last.share, ladder)) if last else None
