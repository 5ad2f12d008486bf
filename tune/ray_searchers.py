"""Ray Tune's searchers, which propose the values of trials, by their names in `tune.search`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliostat.tune.config import TuneConfig


def build_searcher(config: TuneConfig) -> Any:
    """The searcher named in `tune.search`."""
    return SEARCHERS[config.search](config)


def _optuna(config: TuneConfig) -> Any:
    """Optuna's TPE (Bergstra et al. 2011)."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(seed=config.seed)


def _random(config: TuneConfig) -> Any:
    """Independent random draws."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=config.seed, max_concurrent=config.concurrent)


SEARCHERS: dict[str, Callable[[TuneConfig], Any]] = {"optuna": _optuna, "random": _random}
