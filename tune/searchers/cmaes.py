"""CMA-ES, worked out anew from the table of trials.

Optuna's sampler keeps its state in attributes of trials that it drew itself, and learns nothing from others; what is
told here follows from the table alone: the trials in the order of their numbers, a generation after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cmaes
import numpy as np

from heliostat.infra.errors import ConfigError
from heliostat.tune.memo import PerTrial
from heliostat.tune.searchers.searcher import Setup, Values, rng_of
from heliostat.tune.space.values import Range
from heliostat.tune.trials import Trial

SIGMA = 1 / 6
"""The first standard deviation, of a range of one; Optuna's."""


class CmaesSampler:
    """Covariance matrix adaptation (Hansen 2016) over the numeric keys that are always set; others are drawn."""

    def __init__(self, setup: Setup) -> None:
        """Raises ConfigError for several objectives, and if no key is numeric and always set."""
        self._setup, domains = setup, setup.space.domains
        if len(setup.objectives) > 1:
            raise ConfigError("tune.search: cmaes takes one objective; tpe and gp take several")
        self._keys = [key for key in domains if not domains[key].when and _is_numeric(domains[key].values)]
        if not self._keys:
            wanted = "a key without a condition that has uniform, loguniform, quniform, randint or grid"
            raise ConfigError(f"tune.search: cmaes needs {wanted}; searched are {', '.join(domains)}")
        self._places = PerTrial(self._places_of)

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """Draws from the distribution that the last full generation has led to."""
        rng = rng_of(self._setup.seed, number, "cmaes")
        optimizer, space = self._optimizer(trials, rng.getrandbits(32)), self._setup.space
        while True:
            places = zip(self._keys, optimizer.ask(), strict=True)
            yield space.sample(rng, {key: space.domains[key].values.at(float(place)) for key, place in places})

    def _optimizer(self, trials: Sequence[Trial], seed: int) -> Any:
        size = len(self._keys)
        bounds = np.array([[0.0, 1.0]] * size)
        optimizer = cmaes.CMA(np.full(size, 0.5), SIGMA, bounds, n_max_resampling=10 * size, seed=seed)
        ended = [trial for trial in trials if not trial.is_training]
        known = [one for one in zip(ended, self._places.of(ended), strict=True) if one[1] is not None]
        population = optimizer.population_size
        for start in range(0, len(known) - population + 1, population):
            optimizer.tell(self._ranked(known[start : start + population]))
        return optimizer

    def _ranked(self, generation: Sequence[tuple[Trial, Any]]) -> list[tuple[Any, float]]:
        """Places with ranks, of which alone CMA-ES makes use: longer trained, then better; failed ones last."""
        (objective,) = self._setup.objectives
        ranked = sorted(generation, key=lambda one: (bool(one[0].error), -one[0].share, objective.loss(one[0])))
        return [(places, float(rank)) for rank, (_, places) in enumerate(ranked)]

    def _places_of(self, trial: Trial) -> Any:
        """Where the trial's values are in their domains, of shape [keys]; None if it is of another space."""
        inside = self._setup.space.part_inside(trial.values)
        if inside is None or any(key not in inside for key in self._keys):
            return None
        return np.array([self._setup.space.domains[key].values.place(inside[key]) for key in self._keys])


def _is_numeric(values: Any) -> bool:
    return isinstance(values, Range) or bool(values.is_ordered)
