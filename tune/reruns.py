"""Configurations on further seeds: repeats while a search runs, and confirmations of the best after it.

A further run is a trial with the values of the first one and a seed of its own. Schedulers and searchers see one trial
for each configuration, with the means of its repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heliostat.tune.config import TuneConfig
from heliostat.tune.memo import PerGroup
from heliostat.tune.ranking import Configuration, best_first, configurations, is_again, is_lost, mean
from heliostat.tune.trials import SEED, Objective, Trial
from heliostat.tune.work import Work

NEW_SEEDS = 1000
"""Confirmations draw from `train.seed` plus this and more: seeds that no repeat has had."""


class Reruns:
    """Which configurations run again; follows from the table of trials alone."""

    def __init__(self, config: TuneConfig, objectives: Sequence[Objective], seed: int) -> None:
        """`seed` is that of `train`, which the first run of each configuration has."""
        self._config, self._objectives, self._seed = config, objectives, seed
        self._mean = PerGroup(lambda runs: mean(runs, objectives, config.repeats))

    def table(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """The trials of the search, one for each configuration, by number; confirmations are left out."""
        if not any(map(is_again, trials)):
            return trials
        return self._mean.of([one.runs for one in configurations(trials)])

    @property
    def runs(self) -> int:
        """Of each configuration in the search."""
        return self._config.repeats

    def to_begin(self, trials: Sequence[Trial], configurations_left: int) -> int:
        """How many runs are still to begin, with so many further configurations."""
        found = configurations(trials)
        repeats = sum(self.runs - len(one.runs) for one in found if self._is_repeated(one))
        most = min(self._config.confirm, len(found) + configurations_left)
        confirmations = most * self._config.confirm_seeds - sum(len(one.confirmations) for one in found)
        return configurations_left * self.runs + max(0, repeats) + max(0, confirmations)

    def confirmations_left(self, trials: Sequence[Trial]) -> float:
        """What confirmations have still to train, in full trials."""
        begun = [one for one in trials if one.confirms is not None]
        trained = sum(1.0 if one.error or one.stopped else one.share for one in begun)
        return max(0.0, self._config.confirm * self._config.confirm_seeds - trained)

    def repeat(self, trials: Sequence[Trial], may_begin: bool) -> Work | None:
        """What brings the repeats to where the first run of their configuration is; its number is still to be given."""
        if self._config.repeats == 1:
            return None
        works = (self._repeat(one, len(trials), may_begin) for one in configurations(trials) if self._is_repeated(one))
        return next((work for work in works if work), None)

    def _is_repeated(self, one: Configuration) -> bool:
        """Whether its repeats go on: a clone has none, and one that failed or was stopped ends all."""
        ends = any(run.stopped or is_lost(run, self._objectives) for run in one.runs)
        return one.runs[0].origin is None and not ends

    def _repeat(self, one: Configuration, new: int, may_begin: bool) -> Work | None:
        first, count = one.runs[0], len(one.runs)
        if may_begin and count < self._config.repeats:
            values = {**first.values, SEED: self._seed + count}
            return Work(0, new, values, first.until, repeats=first.number)
        behind = next((run for run in one.runs if run.until < first.until), None)
        return Work(0, behind.number, behind.values, first.until) if behind else None

    def confirmation(self, trials: Sequence[Trial]) -> Work | None:
        """The next run of those that confirm the best, once the search has ended; None if all have begun.

        All of them run on a seed before the next one: wherever a budget ends them, they were compared alike.
        """
        if not self._config.confirm:
            return None
        return next(self._confirmations(trials), None)

    def _confirmations(self, trials: Sequence[Trial]) -> Iterator[Work]:
        begun = {(one.confirms, one.values[SEED]) for one in trials if one.confirms is not None}
        table = best_first(self.table(trials), self._objectives)
        usable = [one for one in table if one.scores and not one.stopped and not is_lost(one, self._objectives)]
        for index in range(self._config.confirm_seeds):
            seed = self._seed + NEW_SEEDS + index
            for one in usable[: self._config.confirm]:
                if (one.number, seed) not in begun:
                    yield Work(0, len(trials), {**one.values, SEED: seed}, 1.0, confirms=one.number)


NONE = Reruns(TuneConfig(), (), 0)
"""Every configuration runs once."""
