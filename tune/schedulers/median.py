"""The median stopping rule.

Golovin, Solnik, Moitra, Kochanski, Karro, Sculley: "Google Vizier: A Service for Black-Box Optimization", 2017, 3.2.1.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.tune.dominance import Point
from heliostat.tune.ranking import NEAR, best_point, is_lost, point
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import waits
from heliostat.tune.trials import Begin, Continue, Objective, Trial

ENOUGH = 3
"""Other trials that must have come as far before one can be held against them."""


@dataclass(frozen=True)
class Median:
    """At each validation a trial goes on unless its best is worse than the median of the others' averages until there.

    One that is held is looked at again as others come: it goes on if they are no better. With several objectives a
    trial is held if it is worse in all of them.
    """

    settings: Settings

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        averages: dict[int, list[list[float]]] = {}
        for trial in trials:
            if waits(trial) and not is_lost(trial, self.settings.objectives):
                share = round(trial.share / NEAR)
                if share not in averages:
                    averages[share] = self._averages(trials, trial.share)
                if self._goes_on(trial, averages[share]):
                    return Continue(trial.number, next_validation(trial.share, self.settings.grace))
        return Begin(next_validation(0.0, self.settings.grace)) if may_begin else None

    def _averages(self, trials: Sequence[Trial], share: float) -> list[list[float]]:
        """The averages of all trials that reached `share`: a sorted list for each objective."""
        objectives = self.settings.objectives
        usable = [trial for trial in trials if trial.share > share - NEAR and not is_lost(trial, objectives)]
        return [sorted(axis) for axis in zip(*(average(one, objectives, share) for one in usable), strict=True)]

    def _goes_on(self, trial: Trial, averages: Sequence[Sequence[float]]) -> bool:
        if len(averages[0]) <= ENOUGH:  # its own is among them
            return True
        best = best_point(trial, self.settings.objectives)
        own = average(trial, self.settings.objectives, trial.share)
        return any(best[axis] <= median_without(own[axis], averages[axis]) for axis in range(len(best)))


def average(trial: Trial, objectives: Sequence[Objective], share: float) -> Point:
    """The mean of the trial's validations until `share`, for each objective."""
    points = [point(score, objectives) for score in trial.scores if score.share < share + NEAR]
    return tuple(statistics.fmean(axis) for axis in zip(*points, strict=True))


def median_without(own: float, ordered: Sequence[float]) -> float:
    """The median of `ordered` without one `own` in it."""
    out = bisect_left(ordered, own)
    left = len(ordered) - 1
    low, high = (ordered[index + (index >= out)] for index in ((left - 1) // 2, left // 2))
    return (low + high) / 2


def next_validation(share: float, grace: float) -> float:
    """The share of the next validation: the next multiple of `grace`, at most 1."""
    step = int(share / grace + NEAR) + 1
    return 1.0 if step * grace > 1 - NEAR else round(step * grace, 12)
