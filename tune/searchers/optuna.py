"""Optuna's samplers, each built anew for each trial: what they draw follows from the table of trials and the seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from heliostat.tune.searchers.searcher import Setup, Values, rng_of
from heliostat.tune.searchers.study import ENOUGH, Studies
from heliostat.tune.trials import Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)  # the terminal shows the search, and nothing of Optuna's


@dataclass(frozen=True)
class OptunaSampler:
    """Draws by a sampler of Optuna, from a study of what is known."""

    setup: Setup
    studies: Studies
    build: Callable[[int], BaseSampler]
    """The sampler with a seed."""

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """Its guesses; each one knows of those before, as of trials that are training."""
        seed = rng_of(self.setup.seed, number, "optuna").getrandbits(32)
        study, space = self.studies.of(trials, self.build(seed)), self.setup.space
        while True:
            parameters = study.ask(self.studies.distributions).params
            values = {key: domain.values.from_optuna(parameters[key]) for key, domain in space.domains.items()}
            yield space.configuration(values)


def tpe(setup: Setup) -> OptunaSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), of all keys together (Falkner et al. 2018).

    Keys that are set under conditions are modelled with those that have the same ones (`group`).
    """

    def build(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`, since 2021
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=ENOUGH)

    return OptunaSampler(setup, Studies(setup, len(setup.objectives) > 1, takes_parts=True), build)


def gp(setup: Setup) -> OptunaSampler:
    """Gaussian process with a Matérn kernel and expected improvement; keys under conditions are drawn at random."""

    def build(seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=ENOUGH, warn_independent_sampling=False)

    return OptunaSampler(setup, Studies(setup, at_one_share=True, takes_parts=False), build)
