"""From the `train` section to DeepSpeed's configuration and the learning rate of each step."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from heliostat.train.config import TrainConfig
from heliostat.train.engine import deepspeed_config, learning_rate, micro_batch_size


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [12, 24, 48, 96, 120, 1000 * 12])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_micro_batch_times_accumulation_times_workers_is_the_global_batch(
    workers: int, batch: int, device: str
) -> None:
    train = TrainConfig(workers=workers, global_batch_size=batch)
    micro = micro_batch_size(train, device)
    config = deepspeed_config(train, micro)
    assert micro * config["gradient_accumulation_steps"] * workers == batch
    assert micro <= {"cpu": 16, "cuda": 64}[device]


def test_the_escape_hatch_is_merged_key_by_key() -> None:
    train = TrainConfig(zero_stage=2, deepspeed={"zero_optimization": {"reduce_bucket_size": 5}, "dump_state": True})
    config = deepspeed_config(train, 4)
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 5}
    assert config["dump_state"] is True
    assert config["bf16"] == {"enabled": True}


def test_the_global_batch_must_divide() -> None:
    with pytest.raises(ValidationError, match="multiple of"):
        TrainConfig(workers=3, global_batch_size=32)


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
