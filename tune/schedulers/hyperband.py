"""HyperBand, asynchronously: brackets of successive halving that begin at different rungs.

Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar: "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", 2018, algorithm 1; each bracket halves as in Li et al. 2020 (see `asha`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import between_rungs, last_resort, next_rung, promotion, rungs
from heliostat.tune.trials import Begin, Continue, Trial


@dataclass(frozen=True)
class HyperBand:
    """Each trial belongs to a bracket by its number; a bracket promotes among its own trials."""

    settings: Settings

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        objectives, eta = self.settings.objectives, self.settings.eta
        ladder = rungs(self.settings.grace, eta)
        cycle = brackets(len(ladder), eta)
        members = [
            ([trial for trial in trials if cycle[trial.number % len(cycle)] == first], ladder[first:])
            for first in range(len(ladder))
        ]
        found = [
            between_rungs(own, own_rungs, objectives) or promotion(own, own_rungs, objectives, eta)
            for own, own_rungs in members
        ]
        best = max((one for one in found if one), key=lambda one: (one.until, -one.trial), default=None)
        if best:
            return best
        if may_begin:
            number = max((trial.number for trial in trials), default=-1) + 1
            return Begin(ladder[cycle[number % len(cycle)]])
        for own, own_rungs in members:  # as published, each bracket trains somebody in full
            if last := last_resort(own, objectives):
                return Continue(last.number, next_rung(last.share, own_rungs))
        return None


@cache
def brackets(rungs: int, eta: float) -> tuple[int, ...]:
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
    return tuple(found)
