"""The median stopping rule.

Golovin, Solnik, Moitra, Kochanski, Karro, Sculley: "Google Vizier: A Service for Black-Box Optimization", 2017, 3.2.1.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence

from heliostat.tune.dominance import Point
from heliostat.tune.memo import PerTrial
from heliostat.tune.ranking import NEAR, is_lost, point
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import waits
from heliostat.tune.trials import Begin, Continue, Trial

ENOUGH = 3
"""Other trials that must have come as far before one can be held against them."""


class Median:
    """At each validation a trial goes on unless its best is worse than the median of the others' averages until there.

    One that is held is looked at again as others come: it goes on if they are no better. With several objectives a
    trial is held if it is worse in all of them.
    """

    def __init__(self, settings: Settings) -> None:
        self._objectives, self._grace = settings.objectives, settings.grace
        self._course = PerTrial(self._course_of)

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        averages: dict[int, list[list[float]]] = {}
        courses = self._course.of(trials)
        for trial, course in zip(trials, courses, strict=True):
            if course and waits(trial):
                share = round(trial.share / NEAR)
                if share not in averages:
                    there = [other[share][0] for other in courses if share in other]
                    averages[share] = [sorted(axis) for axis in zip(*there, strict=True)]
                if goes_on(*course[share], averages[share]):
                    return Continue(trial.number, next_validation(trial.share, self._grace))
        return Begin(next_validation(0.0, self._grace)) if may_begin else None

    def left(self, trials: Sequence[Trial], wanted: int) -> float:
        """As `training_left`: those that come are likely to go as far as those that have come to rest."""
        resting = [trial.share for trial in trials if not trial.is_training]
        usual = statistics.fmean(resting) if resting else 1.0
        training = sum(max(trial.until, usual) - trial.share for trial in trials if trial.is_training)
        return training + max(0, wanted - len(trials)) * usual

    def _course_of(self, trial: Trial) -> dict[int, tuple[Point, Point]]:
        """The average and the best of the validations until each share, in units of NEAR; nothing if it failed."""
        if is_lost(trial, self._objectives):
            return {}
        points = [point(score, self._objectives) for score in trial.scores]
        return {
            round(score.share / NEAR): (average(points[:count]), min(points[:count]))
            for count, score in enumerate(trial.scores, start=1)
        }


def goes_on(own: Point, best: Point, averages: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is not worse than the others; `averages` are those of all, sorted, for each objective."""
    if len(averages[0]) <= ENOUGH:  # its own is among them
        return True
    return any(best[axis] <= median_without(own[axis], averages[axis]) for axis in range(len(best)))


def average(points: Sequence[Point]) -> Point:
    """The mean for each objective."""
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
