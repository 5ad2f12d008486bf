"""Ray Tune's schedulers, which stop trials early, by their names in `tune.scheduler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliostat.tune.config import TuneConfig


def build_scheduler(config: TuneConfig) -> Any:
    """The scheduler named in `tune.scheduler`."""
    return SCHEDULERS[config.scheduler](config)


def _asha(config: TuneConfig) -> Any:
    """ASHA (Li et al. 2020) by the share of a trial that is done, halving at each rung."""
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="progress", grace_period=max(1, round(100 * config.grace)), max_t=100, reduction_factor=2
    )


def _none(_config: TuneConfig) -> Any:
    """Runs every trial to its end."""
    from ray.tune.schedulers import FIFOScheduler

    return FIFOScheduler()


SCHEDULERS: dict[str, Callable[[TuneConfig], Any]] = {"asha": _asha, "none": _none}
