"""Whether new trials still bring something: what ends a search before `tune.trials`."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.tune.dominance import Point
from heliostat.tune.ranking import NEAR, best_point, is_lost
from heliostat.tune.trials import Objective, Trial


class Patience:
    """Counts the trials since one was better than all before it that had been trained as far.

    It is told of results in the order in which decisions see them, so it runs out at the same trial whoever was
    quicker; of a configuration with several runs it is told of the first one. With several objectives a trial is better
    if no other one is at least as good in all of them.
    """

    def __init__(self, objectives: Sequence[Objective], trials: int, min_delta: float) -> None:
        """It runs out after so many `trials`; what is better by `min_delta` or less is not counted as better."""
        self._objectives, self.trials, self._min_delta = objectives, trials, min_delta
        self._best: dict[int, list[Point]] = {}
        """What was better than all before it, by the share of the trial in units of NEAR."""
        self._seen: set[int] = set()
        self._since = 0
        self.is_used_up = False

    def take(self, trial: Trial) -> None:
        """Takes in what a trial has come to: it was paused, has finished or failed."""
        is_new = trial.number not in self._seen
        self._seen.add(trial.number)
        self._since = 0 if self._is_better(trial) else self._since + is_new
        self.is_used_up = self.is_used_up or self._since >= self.trials

    def _is_better(self, trial: Trial) -> bool:
        if is_lost(trial, self._objectives) or not trial.scores:
            return False
        own, known = best_point(trial, self._objectives), self._best.setdefault(round(trial.share / NEAR), [])
        if not all(self._is_behind(other, own) for other in known):
            return False
        known.append(own)
        return True

    def _is_behind(self, other: Point, own: Point) -> bool:
        """Whether `own` is less, and so better, in an objective at least."""
        return any(mine < its - self._min_delta for its, mine in zip(other, own, strict=True))
