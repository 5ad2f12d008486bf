"""Which checkpoint a trial goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from heliostat.infra.storage.local import LocalStore
from heliostat.train.config import TrainConfig
from heliostat.tune.checkpoints import TrialCheckpoints
from heliostat.tune.work import Place

TASK = SimpleNamespace(mode="min", metric="loss")
STEPS = 10
OWN, OTHERS = "runs/m/s/trials/0", "runs/m/s/trials/1"


def train(rate: float, *past: tuple[float, float]) -> TrainConfig:
    """Settings of a trial, with pairs of the share until which it had another rate, and that."""
    stages = [{"until": until, "learning_rate": before} for until, before in past]
    return TrainConfig.model_validate({"learning_rate": rate, "stages": stages, "validate_every": 3})


def points(folder: Path, source: str, step: int, config: TrainConfig, steps: int = STEPS) -> TrialCheckpoints:
    """Those of trial 0, which begins below `source`."""
    world: Any = SimpleNamespace(from_first=lambda find: find(), size=1, rank=0)
    return TrialCheckpoints(LocalStore(str(folder)), Place(f"{OWN}/001", source, step, 0.0), world, config, steps, TASK)


def stored(folder: Path, trial: str, step: int, config: TrainConfig) -> None:
    """Stores the record of a checkpoint."""
    contract = points(folder, trial, 0, config).contract
    key = f"{trial}/001/{step:08d}-x/checkpoint.json"
    LocalStore(str(folder)).write_bytes(key, json.dumps({"step": step, "contract": dict(contract)}).encode())


def test_a_trial_begins_at_the_newest_checkpoint_that_its_values_led_to(tmp_path: Path) -> None:
    stored(tmp_path, OWN, 3, train(0.1))
    stored(tmp_path, OTHERS, 3, train(0.5))
    stored(tmp_path, OTHERS, 6, train(0.5))
    assert points(tmp_path, OWN, 3, train(0.1)).find_start() == 3
    assert points(tmp_path, OTHERS, 3, train(0.4, (0.3, 0.5))).find_start() == 3
    assert points(tmp_path, OTHERS, 6, train(0.4, (0.6, 0.5))).find_start() == 6


def test_a_checkpoint_of_values_that_a_trial_gave_up_is_left_alone(tmp_path: Path) -> None:
    stored(tmp_path, OWN, 3, train(0.1))
    taken_over = train(0.4, (0.3, 0.5))
    assert points(tmp_path, OWN, 6, taken_over).find_start() == 0
    stored(tmp_path, OWN, 6, taken_over)
    assert points(tmp_path, OWN, 6, taken_over).find_start() == 6


def test_a_clone_with_another_number_of_steps_begins_at_what_there_is(tmp_path: Path) -> None:
    stored(tmp_path, OTHERS, 3, train(0.5))
    assert points(tmp_path, OTHERS, 3, train(0.1), steps=20).find_start() == 3
