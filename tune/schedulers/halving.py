"""Rungs, and who is promoted from one to the next: what ASHA and HyperBand share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from heliostat.tune import dominance
from heliostat.tune.dominance import Point
from heliostat.tune.memo import PerTrial
from heliostat.tune.ranking import NEAR, best_first, best_point, is_lost
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


class Ladder:
    """The rungs that trials of one kind climb."""

    def __init__(self, rungs: Sequence[float], objectives: Sequence[Objective], eta: float) -> None:
        self.rungs, self._objectives, self._eta = rungs, objectives, eta
        self._places = PerTrial(self._places_of)
        self._between = PerTrial(self._is_between)

    def next_above(self, share: float) -> float:
        """The lowest rung above `share`."""
        return next((rung for rung in self.rungs if rung > share + NEAR), 1.0)

    def decide(self, trials: Sequence[Trial]) -> Continue | None:
        """The promotion from the highest rung with a promotable trial.

        Before that, a trial that waits between rungs, as after a change of scheduler, goes on to the next one.
        """
        for trial, is_between in zip(trials, self._between.of(trials), strict=True):
            if is_between:
                return Continue(trial.number, self.next_above(trial.share))
        found = self.places(trials)
        for index in reversed(range(len(self.rungs) - 1)):
            number = promotable(found[index], self._eta)
            if number is not None:
                return Continue(number, self.rungs[index + 1])
        return None

    def finish(self, trials: Sequence[Trial]) -> Continue | None:
        """What is left to do when no further trial will begin.

        With several objectives a rung's front may be larger than its top 1/eta: it goes on in full. If nobody has been
        trained to the end, the best of those that wait goes on.
        """
        return (len(self._objectives) > 1 and self._rest_of_front(trials)) or self._last_resort(trials)

    def _rest_of_front(self, trials: Sequence[Trial]) -> Continue | None:
        """Who waits in the front of the lowest rung that has such a one, once all that will come to it have."""
        lowest = min((trial.until for trial in trials if trial.is_training), default=math.inf)
        for rung, above, there in zip(self.rungs, self.rungs[1:], self.places(trials), strict=False):
            if lowest <= rung + NEAR:
                return None
            fronts = dominance.fronts([place.value for place in there])
            for place in (there[index] for index in (fronts[0] if fronts else ())):
                if place.is_open and place.value[0] < math.inf:
                    return Continue(place.number, above)
        return None

    def _last_resort(self, trials: Sequence[Trial]) -> Continue | None:
        """The best of those that wait, if nothing is in training and nobody has been trained in full."""
        if any(trial.is_training for trial in trials):
            return None
        for trial in best_first(trials, self._objectives):
            if is_lost(trial, self._objectives) or not trial.scores or trial.share > 1 - NEAR:
                return None
            if waits(trial):
                return Continue(trial.number, self.next_above(trial.share))
        return None

    def left(self, trials: Sequence[Trial], wanted: int) -> float:
        """What is to be trained yet, in full trials, if there will be `wanted` trials and none fails.

        That is what trials have before them that are on their way to a rung, and those that will come to it: 1/eta of
        those at the rung below, and one at least.
        """
        found, below, number = 0.0, 0.0, max(wanted, len(trials))
        for rung in self.rungs:
            coming = [trial for trial in trials if trial.until > rung - NEAR]
            found += sum(max(0.0, rung - max(trial.share, below)) for trial in coming if trial.is_training)
            number = max(number, len(coming))
            found += (number - len(coming)) * (rung - below)
            below, number = rung, max(1, int(number / self._eta + NEAR))
        return found

    def places(self, trials: Sequence[Trial]) -> list[list[Place]]:
        """Who has reached each rung, by number."""
        found: list[list[Place]] = [[] for _ in self.rungs]
        for own in self._places.of(trials):
            for there, place in zip(found, own, strict=False):
                there.append(place)
        return found

    def _places_of(self, trial: Trial) -> list[Place]:
        """The trial at each rung, from the lowest to the last that it has reached."""
        worst, lost = (math.inf,) * len(self._objectives), is_lost(trial, self._objectives)
        found: list[Place] = []
        for rung in self.rungs:
            is_last = trial.until <= rung + NEAR
            if is_last and lost:
                found.append(Place(worst, trial.number, False))
            # A stopped one is as if it had never come here: its place is for those who can go on.
            if trial.share < rung - NEAR or (is_last and (lost or trial.stopped)):
                break
            found.append(Place(best_point(trial, self._objectives, rung), trial.number, is_last))
        return found

    def _is_between(self, trial: Trial) -> bool:
        at_rung = any(abs(trial.share - rung) <= NEAR for rung in self.rungs)
        return not at_rung and waits(trial) and not is_lost(trial, self._objectives)


def promotable(rung: Sequence[Place], eta: float) -> int | None:
    """The number of the best trial that waits at a rung, if it is in the rung's top 1/eta."""
    top = int(len(rung) / eta + NEAR)
    if not top or not any(place.is_open for place in rung):
        return None
    for index in dominance.order([place.value for place in rung])[:top]:
        if rung[index].is_open and rung[index].value[0] < math.inf:
            return rung[index].number
    return None


def waits(trial: Trial) -> bool:
    """Whether the trial could go on, and is not told to."""
    return not (trial.error or trial.stopped or trial.is_training or trial.share > 1 - NEAR)
