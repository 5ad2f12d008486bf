"""A run whose values change on the way: `train.stages`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.train.config import CHANGEABLE, TrainConfig
from heliostat.train.engine import DECAYS, RATE, learning_rate, set_values
from heliostat.train.stages import schedule_until, train_at

STAGES: list[dict[str, Any]] = [
    {"until": 0.3, "learning_rate": 0.5},
    {"until": 0.6, "weight_decay": 0.25, "betas": [0.5, 0.75]},
]


def train(*stages: dict[str, Any], **values: Any) -> TrainConfig:
    return TrainConfig.model_validate({"learning_rate": 1.0, "weight_decay": 0.0, "stages": stages, **values})


def test_each_step_has_the_values_of_its_stage_and_the_others_of_train() -> None:
    found = [train_at(train(*STAGES), step, 10) for step in range(10)]
    assert [one.learning_rate for one in found] == [0.5] * 3 + [1.0] * 7
    assert [one.weight_decay for one in found] == [0.0] * 3 + [0.25] * 3 + [0.0] * 4
    assert [one.betas for one in found] == [(0.9, 0.999)] * 3 + [(0.5, 0.75)] * 3 + [(0.9, 0.999)] * 4


@pytest.mark.parametrize("steps", [7, 10, 1003])
def test_a_share_of_whole_steps_ends_at_that_step(steps: int) -> None:
    for end in range(1, steps):
        one = train({"until": end / steps, "learning_rate": 0.5})
        assert [train_at(one, step, steps).learning_rate for step in (end - 1, end)] == [0.5, 1.0]


def test_a_stage_has_its_piece_of_the_schedule_over_the_whole_run() -> None:
    staged = train(STAGES[0], schedule="linear", warmup=0.0)
    rates = [learning_rate(train_at(staged, step, 10), step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 0.45, 0.4, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_runs_are_told_apart_by_what_they_were_trained_with_until_a_step() -> None:
    one, other = train(STAGES[0]), train(STAGES[0], learning_rate=0.1)
    assert schedule_until(one, 3, 10) == schedule_until(other, 3, 10)
    assert schedule_until(one, 4, 10) != schedule_until(other, 4, 10)
    assert schedule_until(train(), 5, 10) == schedule_until(train({"until": 0.2, "learning_rate": 1.0}), 5, 10)
    assert schedule_until(one, 0, 10) == []
    ends = [(end, values["learning_rate"]) for end, values in schedule_until(one, 10, 10)]
    assert ends == [(3, 0.5), (10, 1.0)]
    assert set(schedule_until(one, 3, 10)[0][1]) == set(CHANGEABLE)


def test_the_next_step_has_the_values_given_whatever_the_optimizer_had() -> None:
    restored = {"lr": 9.0, "betas": (0.1, 0.1)}
    groups = [
        {**restored, "weight_decay": 9.0, RATE: 1.0, DECAYS: 1.0},
        {**restored, "weight_decay": 0.0, RATE: 2.0, DECAYS: 0.0},
        {**restored, "weight_decay": 9.0},  # of a checkpoint that has no factors
        {**restored, "weight_decay": 0.0},
    ]
    engine = SimpleNamespace(optimizer=SimpleNamespace(param_groups=groups))
    for decay in (0.0, 0.25):
        set_values(engine, train(weight_decay=decay, betas=[0.5, 0.75]), 0.125)
    assert [group["lr"] for group in groups] == [0.125, 0.25, 0.125, 0.125]
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0, 0.25, 0.0]
    assert {group["betas"] for group in groups} == {(0.5, 0.75)}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"until": 0.5, "weight_decay": 1}, {"until": 0.5, "weight_decay": 2}],
            r"^stages: .* given; until has to be above that of the stage before$",
        ),
        (
            [{"until": 0.5}],
            r"^stages: .* given; each stage needs at least one of learning_rate, weight_decay, betas$",
        ),
        ([{"until": 1.5, "weight_decay": 1}], r"^stages\.0\.until: .*less than or equal to 1"),
        ([{"until": 0.5, "global_batch_size": 8}], r"^stages\.0\.global_batch_size: .*"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, {"stages": stages})
