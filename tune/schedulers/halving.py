"""Rungs, and who is promoted from one to the next: what ASHA and HyperBand share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from heliostat.tune import dominance
from heliostat.tune.dominance import Point
from heliostat.tune.ranking import NEAR, best_first, is_lost, point
from heliostat.tune.trials import Continue, Objective, Trial


class Place(NamedTuple):
    """A trial at a rung that it has reached, or failed on its way to."""

    value: Point
    """Its best validation until there; infinite if it failed."""
    number: int
    is_open: bool
    """Whether it waits there, and may be promoted."""


def rungs(grace: float, eta: float) -> tuple[float, ...]:
    """The shares at which trials are compared: `grace`·eta^k as multiples of `grace`, and 1.

    One that is nearer to the end than by a factor of √eta is left out: what is left is hardly worth a comparison.
    """
    found: list[float] = []
    power = 0
    while (steps := round(eta**power)) * grace * math.sqrt(eta) <= 1 + NEAR:
        if not found or steps * grace > found[-1] + NEAR:
            found.append(round(steps * grace, 12))
        power += 1
    return (*found, 1.0) if found else (grace, 1.0) if grace < 1 - NEAR else (1.0,)


def places(trials: Sequence[Trial], rungs: Sequence[float], objectives: Sequence[Objective]) -> list[list[Place]]:
    """Who has reached each rung."""
    found: list[list[Place]] = [[] for _ in rungs]
    worst = (math.inf,) * len(objectives)
    for trial in trials:
        scores = trial.scores
        points = [point(score, objectives) for score in scores]
        lost = bool(trial.error) or (bool(points) and points[-1] == worst)
        share, until, best, seen = trial.share + NEAR, trial.until - NEAR, worst, 0
        for rung, there in zip(rungs, found, strict=True):
            waits = until <= rung
            if waits and lost:
                there.append(Place(worst, trial.number, False))
            if share < rung or (waits and (lost or trial.stopped)):
                break  # a stopped one is as if it had never come: its place is for those who can go on
            while seen < len(scores) and scores[seen].share <= rung + NEAR:
                best = min(best, points[seen])
                seen += 1
            there.append(Place(best, trial.number, waits))
    return found


def promotable(rung: Sequence[Place], eta: float) -> int | None:
    """The number of the best trial that waits at a rung, if it is in the rung's top 1/eta."""
    top = int(len(rung) / eta + NEAR)
    if not top or not any(place.is_open for place in rung):
        return None
    for index in dominance.order([place.value for place in rung])[:top]:
        if rung[index].is_open and rung[index].value[0] < math.inf:
            return rung[index].number
    return None


def promotion(
    trials: Sequence[Trial], rungs: Sequence[float], objectives: Sequence[Objective], eta: float
) -> Continue | None:
    """The promotion from the highest rung that has a promotable trial."""
    found = places(trials, rungs, objectives)
    for index in reversed(range(len(rungs) - 1)):
        number = promotable(found[index], eta)
        if number is not None:
            return Continue(number, rungs[index + 1])
    return None


def next_rung(share: float, rungs: Sequence[float]) -> float:
    """The lowest rung above `share`."""
    return next((rung for rung in rungs if rung > share + NEAR), 1.0)


def between_rungs(trials: Sequence[Trial], rungs: Sequence[float], objectives: Sequence[Objective]) -> Continue | None:
    """A trial that waits where no rung is, as after a change of scheduler, goes on to the next one."""
    known = {round(rung / NEAR) for rung in rungs}
    for trial in trials:
        if round(trial.share / NEAR) not in known and waits(trial) and not is_lost(trial, objectives):
            return Continue(trial.number, next_rung(trial.share, rungs))
    return None


def waits(trial: Trial) -> bool:
    """Whether the trial could go on, and is not told to."""
    return not (trial.error or trial.stopped or trial.is_training or trial.share > 1 - NEAR)


def last_resort(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """The best of those that wait, if nothing is in training and nobody has been trained in full."""
    if any(trial.is_training for trial in trials):
        return None
    for trial in best_first(trials, objectives):
        if is_lost(trial, objectives) or not trial.scores or trial.share > 1 - NEAR:
            return None
        if waits(trial):
            return trial
    return None
