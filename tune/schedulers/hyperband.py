"""HyperBand, asynchronously: brackets of successive halving that begin at different rungs.

Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar: "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", 2018, algorithm 1; each bracket halves as in Li et al. 2020 (see `asha`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import Ladder, rungs
from heliostat.tune.trials import Begin, Continue, Trial


class HyperBand:
    """Each trial belongs to a bracket by its number; a bracket promotes among its own trials."""

    def __init__(self, settings: Settings) -> None:
        shares = rungs(settings.grace, settings.eta)
        self._cycle = brackets(len(shares), settings.eta)
        self._ladders = [Ladder(shares[first:], settings.objectives, settings.eta) for first in range(len(shares))]

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        brackets = list(zip(self._ladders, self._members(trials), strict=True))
        found = [decision for ladder, own in brackets if (decision := ladder.decide(own))]
        if found:
            return max(found, key=lambda one: (one.until, -one.trial))
        if may_begin:
            number = max((trial.number for trial in trials), default=-1) + 1
            return Begin(self._ladders[self._bracket(number)].rungs[0])
        # As published, each bracket trains somebody in full.
        return next((last for ladder, own in brackets if (last := ladder.finish(own))), None)

    def left(self, trials: Sequence[Trial], wanted: int) -> float:
        """As `training_left`."""
        coming = Counter(self._bracket(number) for number in range(len(trials), wanted))
        return sum(
            ladder.left(own, len(own) + coming[bracket])
            for bracket, (ladder, own) in enumerate(zip(self._ladders, self._members(trials), strict=True))
            if own or coming[bracket]
        )

    def _members(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        """The trials of each bracket."""
        found: list[list[Trial]] = [[] for _ in self._ladders]
        for trial in trials:
            found[self._bracket(trial.number)].append(trial)
        return found

    def _bracket(self, number: int) -> int:
        return self._cycle[number % len(self._cycle)]


def brackets(rungs: int, eta: float) -> list[int]:
    """The rung that each trial of a cycle begins at, by its number.

    The bracket that begins s rungs below the end has ⌈(rungs / (s + 1))·eta^s⌉ trials of a cycle, as published. They
    are mixed evenly (each goes to the bracket that is furthest behind), so that a search that ends early has had all.
    """
    sizes = [math.ceil(rungs / (s + 1) * eta**s) for s in reversed(range(rungs))]
    found: list[int] = []
    counts = [0] * rungs
    for place in range(1, sum(sizes) + 1):
        behind = [size * place / sum(sizes) - count for size, count in zip(sizes, counts, strict=True)]
        bracket = behind.index(max(behind))
        counts[bracket] += 1
        found.append(bracket)
    return found
