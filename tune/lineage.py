"""What the weights of a trial were trained with, where trials take over the weights of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heliostat.tune.ranking import NEAR
from heliostat.tune.trials import Stretch, Trial

Schedule = Sequence[tuple[float, Mapping[str, Any]]]
"""What weights were trained with: pairs of the share until which, and the values, by share."""


def values_at(trial: Trial, share: float) -> Mapping[str, Any]:
    """The values with which the trial was trained to `share`."""
    return _stretch(trial, share)[1].values


def schedule(trials: Sequence[Trial], number: int, share: float | None = None) -> Schedule:
    """What led to the weights that trial `number` has at `share` (what it has reached, if omitted).

    Across all trials whose weights were taken over: what `train` has to repeat for the same weights. Shares are those
    of the steps, which are whole, where these are known.
    """
    return schedule_in({trial.number: trial for trial in trials}, number, share)


def schedule_in(table: Mapping[int, Trial], number: int, share: float | None = None) -> Schedule:
    """As `schedule`, of trials by their numbers."""
    at = table[number].share if share is None else share
    found: list[tuple[float, Mapping[str, Any]]] = []
    while at > NEAR:
        start, stretch = _stretch(table[number], at)
        if not found or found[0][1] != stretch.values:
            found.insert(0, (_of_steps(table[number], at), stretch.values))
        number, at = (stretch.origin.trial, stretch.origin.share) if stretch.origin else (number, start)
    return found


def _of_steps(trial: Trial, share: float) -> float:
    """The share of its steps that the trial was trained when it had reached `share`."""
    reached = (score for score in trial.scores if abs(score.share - share) < NEAR and score.steps)
    return next((score.step / score.steps for score in reached), share)


def _stretch(trial: Trial, share: float) -> tuple[float, Stretch]:
    """The stretch in which the trial reached `share`, and where it began."""
    start = 0.0
    for stretch in trial.past:
        if share <= stretch.until + NEAR:
            return start, stretch
        start = stretch.until
    return start, Stretch(trial.until, trial.values, trial.origin)
