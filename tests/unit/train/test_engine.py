"""From the `train` section to DeepSpeed's configuration and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import BatchPlan
from heliostat.train.engine import MICRO_BATCH_LIMIT, deepspeed_config, learning_rate, micro_batch_size, most_records
from heliostat.train.parallel.config import Workers


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch", [7, 12, 32, 34, 97, 12_000])
@pytest.mark.parametrize("limit", [1, 16, 64])
def test_the_passes_of_all_workers_hold_the_global_batch_and_hardly_more(
    world_size: int, batch: int, limit: int
) -> None:
    micro = micro_batch_size(batch, world_size, limit)
    config = deepspeed_config(TrainConfig(global_batch_size=batch, precision="fp32"), world_size, micro)
    passes = config["gradient_accumulation_steps"]
    assert micro <= limit
    ones = np.ones(batch)
    assert passes == BatchPlan(ones, ones, batch, 0).accumulation(world_size, micro)
    assert config["train_batch_size"] == micro * passes * world_size >= batch
    share = math.ceil(batch / world_size)
    assert passes == math.ceil(share / limit)
    assert micro * passes - share < passes


def test_the_escape_hatch_is_merged_key_by_key() -> None:
    own = {"zero_optimization": {"reduce_bucket_size": 5}, "dump_state": True}
    config = deepspeed_config(TrainConfig(zero_stage=2, precision="bf16", deepspeed=own), 1, 4)
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 5}
    assert config["dump_state"] is True
    assert config["bf16"] == {"enabled": True}


def test_workers_are_a_number_or_bounds() -> None:
    assert train_config(workers=3).workers == Workers(min=3, max=3)
    assert train_config(workers={"min": 1, "max": 4}).workers == Workers(min=1, max=4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": {"min": 4, "max": 2}}, "min 4 is above max 2"),
        ({"workers": "many"}, r"a number or \{min, max\} is allowed"),
        ({"workers": True}, "true and false are not allowed here"),
        ({"workers": 0}, "greater than 0"),
        ({"workers": 3, "global_batch_size": 2}, r"2 given; must be at least train\.workers \(3\)"),
    ],
)
def test_bad_numbers_of_workers_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        train_config(**values)


def train_config(**values: Any) -> TrainConfig:
    return TrainConfig.model_validate(values)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_learning_rate_rises_then_falls_towards_zero(schedule: str) -> None:
    train = TrainConfig.model_validate({"learning_rate": 1.0, "warmup": 0.1, "schedule": schedule})
    rates = [learning_rate(train, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02
    assert rates[55] == pytest.approx(0.5)


def test_a_constant_schedule_stays() -> None:
    train = TrainConfig(learning_rate=0.3, warmup=0.0, schedule="constant")
    assert {learning_rate(train, step, 7) for step in range(7)} == {0.3}


def test_a_micro_batch_has_what_suits_the_device_unless_the_spec_or_memory_says_less() -> None:
    def most(limit: int | None = None, **settings: Any) -> int:
        return most_records(object(), TrainConfig.model_validate(settings), "cpu", limit)

    assert most() == MICRO_BATCH_LIMIT["cpu"]
    assert most(max_micro_batch=64) == 64
    assert (most(8, max_micro_batch=64), most(8, max_micro_batch=4), most(8)) == (8, 4, 8)
