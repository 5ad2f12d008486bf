"""What is worked out of a trial once, as long as nothing new is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from heliostat.tune.trials import Trial

Result = TypeVar("Result")


class PerTrial(Generic[Result]):
    """`function` of each trial of a table; only for trials that are other objects than last time is it called."""

    def __init__(self, function: Callable[[Trial], Result]) -> None:
        self._function = function
        self._known: dict[int, tuple[Trial, Result]] = {}

    def of(self, trials: Sequence[Trial]) -> list[Result]:
        """The results in the order of `trials`."""
        return [self._one(trial) for trial in trials]

    def _one(self, trial: Trial) -> Result:
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:  # trials are frozen
            known = self._known[trial.number] = (trial, self._function(trial))
        return known[1]


class PerGroup(Generic[Result]):
    """`function` of each group of trials, of which none is empty; see `PerTrial`."""

    def __init__(self, function: Callable[[Sequence[Trial]], Result]) -> None:
        self._function = function
        self._known: dict[int, tuple[Sequence[Trial], Result]] = {}

    def of(self, groups: Sequence[Sequence[Trial]]) -> list[Result]:
        """The results in the order of `groups`."""
        return [self._one(group) for group in groups]

    def _one(self, group: Sequence[Trial]) -> Result:
        before, found = self._known.get(group[0].number, ((), None))
        if len(before) != len(group) or any(one is not other for one, other in zip(before, group, strict=True)):
            found = self._function(group)
            self._known[group[0].number] = group, found
        return cast(Result, found)
