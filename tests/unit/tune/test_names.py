"""The names in the `tune` section are those of what there is."""

from __future__ import annotations

from typing import get_args

from heliostat.tune.config import TuneConfig
from heliostat.tune.schedulers.catalog import KINDS
from heliostat.tune.searchers import SEARCHERS


def test_the_spec_takes_every_searcher_that_there_is() -> None:
    assert set(get_args(TuneConfig.model_fields["search"].annotation)) == set(SEARCHERS)


def test_the_spec_takes_every_scheduler_that_there_is() -> None:
    assert set(get_args(TuneConfig.model_fields["scheduler"].annotation)) == set(KINDS)


def test_how_many_trials_run_follows_from_the_lag_and_the_bound() -> None:
    assert TuneConfig(trials=16).decision_lag == 4
    assert TuneConfig(trials=16).most_gangs == 5
    assert TuneConfig(trials=16, concurrent=2).most_gangs == 2
    assert TuneConfig(trials=16, lag=0).most_gangs == 1
    without = TuneConfig(trials=16, lag="none")
    assert (without.decision_lag, without.most_gangs) == (None, 16)
