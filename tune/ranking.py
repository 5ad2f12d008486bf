"""The one meaning of "best": which of two trials is better, whoever asks.

A trial is compared by the share of it that was trained, then by its best validation until there. With several
objectives the best validation is that of the first objective, and the others count as measured at it: a model has to be
able to show all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from heliostat.tune import dominance
from heliostat.tune.dominance import Point
from heliostat.tune.trials import Objective, Score, Trial

Outcome = Literal["waiting", "training", "paused", "finished", "stopped", "failed"]

NEAR = 1e-9
"""Shares that differ by less are the same: a third of three is not always one."""


def point(score: Score, objectives: Sequence[Objective]) -> Point:
    """The values of a validation, less being better in each; infinite in all if one of them is no finite number."""
    values = []
    for objective in objectives:
        value = score.metrics.get(objective.metric, math.nan)
        if not math.isfinite(value):
            return (math.inf,) * len(objectives)
        values.append(value if objective.mode == "min" else -value)
    return tuple(values)


def best_point(trial: Trial, objectives: Sequence[Objective], share: float = 1.0) -> Point:
    """The best validation of the trial until it reached `share`; infinite if none has finite values."""
    points = [point(score, objectives) for score in trial.lasting if score.share <= share + NEAR]
    return min(points, default=(math.inf,) * len(objectives))


def is_lost(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether the trial can never be the best: it failed, or its last validation is no finite number."""
    return bool(trial.error) or (bool(trial.scores) and math.isinf(point(trial.scores[-1], objectives)[0]))


def best_first(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials, best first: those that reached a greater share, then by value; failed ones last; ties by number.

    With several objectives value means the non-dominated front, then crowding. Those that were never validated come
    before those that failed.
    """
    usable: dict[float, list[Trial]] = {}
    last: list[Trial] = []
    for trial in sorted(trials, key=lambda one: one.number):
        if is_lost(trial, objectives) or not trial.scores:
            last.append(trial)
        else:
            usable.setdefault(round(trial.share / NEAR), []).append(trial)
    found: list[Trial] = []
    for share in sorted(usable, reverse=True):
        group = usable[share]
        found += [group[index] for index in dominance.order([best_point(one, objectives) for one in group])]
    return found + sorted(last, key=lambda one: (is_lost(one, objectives), one.number))


def pareto_front(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Those that no other trial is better than in all objectives, by number; among those trained furthest only."""
    usable = sorted(
        (trial for trial in trials if trial.scores and not is_lost(trial, objectives)), key=lambda one: one.number
    )
    furthest = max((trial.share for trial in usable), default=0.0)
    usable = [trial for trial in usable if trial.share > furthest - NEAR]
    fronts = dominance.fronts([best_point(trial, objectives) for trial in usable])
    return [usable[index] for index in fronts[0]] if fronts else []


def outcome(trial: Trial, on_gangs: Collection[int] | None = None) -> Outcome:
    """What has become of a trial.

    `on_gangs` are the numbers of those that a gang has: others that are to be trained wait. If omitted, all have one.
    """
    if trial.error:
        return "failed"
    if trial.share > 1 - NEAR:
        return "finished"
    if trial.stopped:
        return "stopped"
    if not trial.is_training:
        return "paused" if trial.scores else "waiting"
    return "training" if on_gangs is None or trial.number in on_gangs else "waiting"
