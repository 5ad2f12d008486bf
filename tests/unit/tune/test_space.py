"""The search space of a spec, and Ray Tune's."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pydantic import ValidationError

from heliostat.infra.errors import ConfigError
from heliostat.train.config import TrainConfig
from heliostat.train.parallel.config import Workers
from heliostat.tune.config import TuneConfig
from heliostat.tune.ray_schedulers import build_scheduler
from heliostat.tune.search import as_trial
from heliostat.tune.searchers import build_searcher
from heliostat.tune.space import build_space, check_space, trial_config

SPACE = {"learning_rate": {"loguniform": [1e-5, 1e-3]}, "global_batch_size": {"choice": [16, 32]}}


def test_values_are_drawn_from_the_domains() -> None:
    random.seed(0)
    np.random.seed(0)
    space = build_space(TuneConfig.model_validate({"space": SPACE}))
    drawn = [{key: domain.sample() for key, domain in space.items()} for _ in range(100)]
    assert {values["global_batch_size"] for values in drawn} == {16, 32}
    assert all(1e-5 <= values["learning_rate"] <= 1e-3 for values in drawn)


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space"):
        build_space(TuneConfig())


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"choice": []}, "empty"),
        ({"uniform": [2, 1]}, "low < high"),
        ({"loguniform": [0, 1]}, "0 < low"),
        ({"choice": [1], "uniform": [1, 2]}, "exactly one"),
        ({}, "exactly one"),
    ],
)
def test_a_bad_domain_is_refused(domain: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TuneConfig.model_validate({"space": {"learning_rate": domain}})


def test_a_space_that_can_draw_a_bad_value_is_refused_before_any_trial() -> None:
    tune = TuneConfig.model_validate({"space": {"global_batch_size": {"choice": [16, 2]}}})
    with pytest.raises(ConfigError, match=r"tune\.space\.global_batch_size: 2 given.*at least train\.workers"):
        check_space(TrainConfig.model_validate({"workers": 3}), tune)
    check_space(TrainConfig(), tune)


def test_a_trial_is_the_train_section_with_its_values_and_its_length() -> None:
    train = TrainConfig(workers=Workers(min=1, max=2), epochs=3, zero_stage=2)
    trial = trial_config(train, TuneConfig(epochs=0.5), {"learning_rate": 1e-3})
    assert (trial.learning_rate, trial.epochs, trial.zero_stage, trial.workers.max) == (1e-3, 0.5, 2, 2)
    assert trial_config(train, TuneConfig(), {}).epochs == 3


def test_the_scheduler_may_stop_a_trial_at_its_grace_and_no_earlier() -> None:
    scheduler = build_scheduler(TuneConfig(grace=0.25))
    assert sorted(milestone for milestone, _ in scheduler._brackets[0]._rungs) == [25, 50, 100]
    assert type(build_scheduler(TuneConfig(scheduler="none"))).__name__ == "FIFOScheduler"


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_both_ways_to_propose_values_can_be_built(search: str) -> None:
    assert build_searcher(TuneConfig.model_validate({"search": search})) is not None


class Result:
    """What Ray Tune knows of a trial."""

    def __init__(self, progress: int, error: Exception | None = None) -> None:
        self.metrics = {"accuracy": 0.5, "progress": progress, "time_total_s": 3.0, "trial_id": "a"}
        self.config = {"learning_rate": 1e-4}
        self.error = error


@pytest.mark.parametrize(
    ("result", "outcome"),
    [(Result(100), "finished"), (Result(25), "stopped"), (Result(25, ValueError("no")), "failed")],
)
def test_the_outcome_of_a_trial(result: Result, outcome: str) -> None:
    trial = as_trial(result, TuneConfig.model_validate({"space": {"learning_rate": {"choice": [1e-4]}}}))
    assert trial.outcome == outcome
    assert trial.metrics == {"accuracy": 0.5}
    assert trial.values == {"learning_rate": 1e-4}
    assert (trial.error == "no") == (outcome == "failed")
