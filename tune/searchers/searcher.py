"""What all searchers have in common: points first, nothing twice, an end where a space is used up."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from heliostat.tune.memo import PerTrial
from heliostat.tune.space.space import Space
from heliostat.tune.space.values import same
from heliostat.tune.trials import Objective, Trial

Values = dict[str, Any]
MOST_DRAWS = 16
"""Of a sampler for one trial, until something comes that was not tried."""
MOST_RANDOM_DRAWS = 1000
"""Where the sampler finds nothing new; then a finite space is gone through."""


class Sampler(Protocol):
    """How a searcher draws."""

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """Configurations for trial `number`, the best guess first; the same for the same arguments."""
        ...


@dataclass(frozen=True)
class Setup:
    """What a sampler is built from."""

    space: Space
    objectives: Sequence[Objective]
    seed: int


def rng_of(seed: int, number: int, use: str) -> random.Random:
    """Random numbers of one trial and use: a new process draws the same, whatever was drawn before."""
    return random.Random(f"{seed}/{number}/{use}")


class Searcher:
    """Proposes the values of trials; all that it knows follows from the table of trials."""

    def __init__(self, setup: Setup, sampler: Sampler, points: Sequence[Mapping[str, Any]]) -> None:
        """`points` (see `check_points`) are tried first."""
        self._space, self._seed, self._sampler = setup.space, setup.seed, sampler
        self._points = points
        self._identities = PerTrial(lambda trial: self._space.identity(trial.values))

    def propose(self, trials: Sequence[Trial], number: int) -> Values | None:
        """The values of trial `number`; None if each configuration of the space is among `trials`.

        `trials` are all that were proposed before, those in training too, in the order of their numbers.
        """
        identities = self._identities.of(trials)
        taken = set(identities)
        for point in self._points_left(dict(zip(identities, trials, strict=True))):
            rng = rng_of(self._seed, number, "point")
            found = self._first_new((self._space.sample(rng, point) for _ in range(MOST_RANDOM_DRAWS)), taken)
            if found is not None:
                return found
        if self._space.size <= len(taken) and not self._some_left(taken):
            return None
        return self._new(trials, number, taken)

    def _points_left(self, configurations: Mapping[str, Trial]) -> list[Mapping[str, Any]]:
        """The points that none of the configurations is; each of them stands for one point, the fullest first."""
        left = [trial.values for trial in configurations.values()]
        tried = []
        for point in sorted(self._points, key=len, reverse=True):
            match = next((one for one in left if _is_part(point, one)), None)
            if match is not None:
                left.remove(match)
                tried.append(point)
        return [point for point in self._points if point not in tried]

    def _new(self, trials: Sequence[Trial], number: int, taken: set[str]) -> Values | None:
        found = self._first_new(islice(self._sampler.draw(trials, number), MOST_DRAWS), taken)
        if found is not None:
            return found
        rng = rng_of(self._seed, number, "new")
        found = self._first_new((self._space.sample(rng) for _ in range(MOST_RANDOM_DRAWS)), taken)
        if found is None and math.isfinite(self._space.size):
            left = self._some_left(taken)
            found = rng.choice(left) if left else None
        return found

    def _some_left(self, taken: set[str]) -> list[Values]:
        """The first configurations of a finite space that were not tried."""
        return list(islice(self._not_in(self._space.configurations(), taken), MOST_RANDOM_DRAWS))

    def _first_new(self, configurations: Iterable[Values], taken: set[str]) -> Values | None:
        return next(self._not_in(configurations, taken), None)

    def _not_in(self, configurations: Iterable[Values], taken: set[str]) -> Iterator[Values]:
        return (one for one in configurations if self._space.identity(one) not in taken)


def _is_part(point: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(key in values and same(values[key], point[key]) for key in point)
