"""Searchers, which propose the values of trials, by their names in `tune.search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heliostat.infra.errors import ConfigError
from heliostat.tune.searchers.searcher import Sampler, Searcher, Setup
from heliostat.tune.space.space import Space
from heliostat.tune.trials import Objective


def build_searcher(
    name: str,
    space: Space,
    objectives: Sequence[Objective],
    seed: int,
    points: Sequence[Mapping[str, Any]] = (),
    repeats: int = 1,
) -> Searcher:
    """The searcher of that name; see `Searcher` for `points` and `repeats`.

    Raises ConfigError if the space is empty, or of a kind that this searcher has no use for.
    """
    if not space.domains:
        raise ConfigError("tune.space: empty; give at least one key, such as learning_rate: {loguniform: [1e-5, 1e-3]}")
    setup = Setup(space, objectives, seed)
    return Searcher(setup, SEARCHERS[name](setup), points, repeats)


def _random(setup: Setup) -> Sampler:
    """Independent random draws: the one to compare with."""
    from heliostat.tune.searchers.random import RandomSampler

    return RandomSampler(setup)


def _grid(setup: Setup) -> Sampler:
    """Every configuration, shuffled: for a few values of one or two keys."""
    from heliostat.tune.searchers.grid import GridSampler

    return GridSampler(setup)


def _tpe(setup: Setup) -> Sampler:
    """Optuna's TPE: for any space, also with conditions and trials that stop early."""
    from heliostat.tune.searchers.optuna import tpe

    return tpe(setup)


def _gp(setup: Setup) -> Sampler:
    """Optuna's Gaussian process: for few trials of a few numeric keys."""
    from heliostat.tune.searchers.optuna import gp

    return gp(setup)


def _cmaes(setup: Setup) -> Sampler:
    """CMA-ES: for hundreds of trials of numeric keys."""
    from heliostat.tune.searchers.cmaes import CmaesSampler

    return CmaesSampler(setup)


SEARCHERS: dict[str, Callable[[Setup], Sampler]] = {
    "random": _random,
    "grid": _grid,
    "tpe": _tpe,
    "optuna": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
}
