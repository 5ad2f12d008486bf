"""The names in the `tune` section are those of what there is."""

from __future__ import annotations

from typing import get_args

from heliostat.tune.config import TuneConfig
from heliostat.tune.ray_schedulers import SCHEDULERS, build_scheduler
from heliostat.tune.searchers import SEARCHERS, build_searcher


def test_the_spec_takes_every_scheduler_and_searcher_that_there_is() -> None:
    assert set(get_args(TuneConfig.model_fields["scheduler"].annotation)) == set(SCHEDULERS)
    assert set(get_args(TuneConfig.model_fields["search"].annotation)) == set(SEARCHERS)


def test_a_name_builds_what_it_says() -> None:
    found = {name: type(build_scheduler(TuneConfig(scheduler=name))).__name__ for name in ("asha", "none")}
    assert found == {"asha": "AsyncHyperBandScheduler", "none": "FIFOScheduler"}
    searchers = {name: type(build_searcher(TuneConfig(search=name))).__name__ for name in ("optuna", "random")}
    assert searchers == {"optuna": "OptunaSearch", "random": "BasicVariantGenerator"}
