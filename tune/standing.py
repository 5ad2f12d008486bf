"""Whether the winner is real: configurations over several seeds, and by how much the best is better than each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from heliostat.tune.ranking import (
    ENDED,
    NEAR,
    configurations,
    is_again,
    is_lost,
    means,
    outcome,
    seeds_of_all,
)
from heliostat.tune.statistics import Difference, Repeats, compare, repeats
from heliostat.tune.trials import SEED, Objective, Trial

FIRST_SEED = -1
"""Stands for the seed that first runs share, which only the spec knows."""


@dataclass(frozen=True)
class Standing:
    """A configuration over its seeds, by the first objective."""

    number: int
    """Of its first trial."""
    values: Mapping[str, Any]
    over_seeds: Repeats
    """Of the best validation of each run."""
    behind: Difference | None = None
    """The gain of the best configuration over this one; None of the best itself."""


@dataclass(frozen=True)
class Verdict:
    """What several seeds say of a search."""

    is_confirmed: bool
    """Whether it is about new runs after the search; else it is about repeats in it."""
    standings: Sequence[Standing]
    """Best first, among those trained as far; empty before all that are run again have ended on one seed."""
    left: int
    """Runs of the confirmation that have begun and not ended."""

    @property
    def title(self) -> str:
        """What the standings are of."""
        return "Run again on new seeds" if self.is_confirmed else "Configurations over their seeds"

    @cached_property
    def of(self) -> Mapping[int, Standing]:
        """By the number of the first trial."""
        return {one.number: one for one in self.standings}

    @property
    def sentences(self) -> list[str]:
        """Whether the best is better than the second, and what is still to come."""
        found = []
        if len(self.standings) > 1 and (gain := self.standings[1].behind):
            best, second = (f"trial {one.number}" for one in self.standings[:2])
            found.append(gain.sentence(best, second))
        if self.left:
            found.append(f"{self.left} of the runs on new seeds {'has' if self.left == 1 else 'have'} not ended")
        return found


def verdict(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Verdict | None:
    """What confirmations say, or repeats where there are none; None where every configuration ran once."""
    if not any(map(is_again, trials)):
        return None
    found, ranked = configurations(trials), means(trials, objectives)
    confirming = [run for one in found for run in one.confirmations]
    runs: dict[int, Sequence[Trial]]
    if confirming:
        seeds = seeds_of_all(found, objectives)
        runs = {one.number: one.on(seeds) for one in found if seeds and one.confirmations}
    else:
        best = next((one.share for one in ranked), 0.0)
        as_far = {one.number for one in ranked if one.share > best - NEAR and not is_lost(one, objectives)}
        runs = {one.number: one.runs for one in found if len(one.runs) > 1 and one.number in as_far}
    left = sum(outcome(run) not in ENDED for run in confirming)
    return Verdict(bool(confirming), _standings([one for one in ranked if one.number in runs], runs, objectives), left)


def _standings(
    ranked: Sequence[Trial], runs: Mapping[int, Sequence[Trial]], objectives: Sequence[Objective]
) -> list[Standing]:
    goal, by_seed = objectives[0], {number: _by_seed(one, objectives) for number, one in runs.items()}
    best = by_seed[ranked[0].number] if ranked else {}
    return [
        Standing(
            one.number,
            one.values,
            repeats(by_seed[one.number].values()),
            compare(best, by_seed[one.number], goal.mode) if place else None,
        )
        for place, one in enumerate(ranked)
    ]


def _by_seed(runs: Sequence[Trial], objectives: Sequence[Objective]) -> dict[int, float]:
    """The best value of each run; NaN of those that did not come to their end as they should."""
    return {
        run.values.get(SEED, FIRST_SEED): math.nan
        if is_lost(run, objectives) or run.stopped
        else objectives[0].best(run)
        for run in runs
    }
