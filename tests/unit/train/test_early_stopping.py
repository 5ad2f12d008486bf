"""A run ends when its metric no longer improves, and at the same step however often it is resumed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from heliostat.infra.errors import ConfigError
from heliostat.infra.registry.published import EarlyStop, read_description, write_description
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from heliostat.spec import load_spec
from heliostat.train import loop
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.config import EarlyStoppingConfig, TrainConfig
from heliostat.train.early_stopping import Limited, Patience, patience_of
from heliostat.train.job import Job
from heliostat.train.loop import Run, fit
from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.stats import Report, StepStats
from heliostat.train.worker import contract, describe, restore_best

ALONE = World(0, 1, "cpu")
STEPS = 20
CURVE = [0.50, 0.60, 0.60, 0.70, 0.705, 0.70, 0.69, 0.95, 0.96, 0.97]
"""The accuracy of each validation, one in two steps."""


def over_at(values: list[float], mode: str = "max", **settings: Any) -> int | None:
    """How many of the validations it takes until patience is over; None if these do not."""
    patience = patience_of(EarlyStoppingConfig(**settings), "m", mode)
    for count, value in enumerate(values, 1):
        patience.saw(Report(count, 99, {"m": value}), ALONE)
        if patience.is_over:
            return count
    return None


def test_it_is_over_after_so_many_validations_without_an_improvement() -> None:
    assert over_at([0.5, 0.4, 0.6, 0.6, 0.5], patience=2) == 5
    assert over_at([0.5, 0.4, 0.6, 0.6], patience=2) is None
    assert over_at([0.5, 0.5], patience=1) == 2


def test_less_is_better_where_the_task_says_so() -> None:
    assert over_at([0.5, 0.4, 0.3], mode="min", patience=1) is None
    assert over_at([0.5, 0.4, 0.3], mode="max", patience=1) == 2


def test_an_improvement_is_larger_than_min_delta() -> None:
    assert over_at([0.5, 0.75, 0.75], patience=1, min_delta=0.25) == 2
    assert over_at([0.5, 0.76, 1.02], patience=1, min_delta=0.25) is None


def test_small_steps_add_up_to_an_improvement() -> None:
    assert over_at([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], patience=2, min_delta=0.15) is None


def test_what_is_no_finite_number_is_no_improvement() -> None:
    assert over_at([math.nan, math.inf], patience=2) == 2
    assert over_at([math.nan, 0.1, -math.inf, 0.2], mode="max", patience=2) is None
    patience = Limited(EarlyStoppingConfig(patience=1), "m", "max")
    patience.saw(Report(1, 9, {}), ALONE)
    assert patience.is_over


def test_without_the_key_a_run_never_ends_early() -> None:
    patience = patience_of(None, "m", "max")
    assert not patience.saw(Report(1, 9, {"m": 0.0}), ALONE)
    assert (patience.is_over, patience.state(), patience.stop()) == (False, {}, None)


def test_ranks_that_measure_otherwise_decide_as_the_first_one() -> None:
    class Second(World):
        """Rank 1, to which rank 0 has sent 0.5."""

        def from_first(self, make: Any) -> Any:
            return 0.5

    patience = Limited(EarlyStoppingConfig(patience=1), "m", "max", best=0.5)
    assert not patience.saw(Report(1, 9, {"m": 0.5000001}), Second(1, 2, "cpu"))
    assert patience.is_over


def test_its_state_survives_json_to_the_last_bit() -> None:
    one = Limited(EarlyStoppingConfig(patience=3), "m", "max")
    one.saw(Report(2, 9, {"m": 0.1 + 0.2}), ALONE)
    one.saw(Report(4, 9, {"m": 0.3}), ALONE)
    other = Limited(EarlyStoppingConfig(patience=3), "m", "max")
    other.resume(json.loads(json.dumps(one.state())))
    assert other == one


def test_it_says_where_and_why() -> None:
    patience = Limited(EarlyStoppingConfig(patience=2, min_delta=0.01), "accuracy", "max")
    for step, value in ((10, 0.5), (20, 0.9), (30, 0.9), (40, 0.905)):
        assert patience.stop() is None
        patience.saw(Report(step, 100, {"accuracy": value}), ALONE)
    early = patience.stop()
    assert early is not None
    assert early.words == (
        "after step 40 of 100: accuracy has not improved by more than 0.01 in 2 validations, since step 20"
    )


def test_a_run_whose_last_validation_brings_nothing_has_not_ended_early() -> None:
    patience = Limited(EarlyStoppingConfig(patience=1), "m", "max", best=0.5)
    patience.saw(Report(9, 9, {"m": 0.5}), ALONE)
    assert patience.is_over
    assert patience.stop() is None


@pytest.mark.parametrize(("validations", "warned"), [(3, True), (4, False)])
def test_a_run_of_too_few_validations_is_warned_of(
    validations: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        patience_of(EarlyStoppingConfig(patience=2), "m", "max").check(validations)
    assert ("train.early_stopping.patience: 2 given, and the run has 3 validations" in caplog.text) == warned


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["early_stopping.patience=0"], "train.early_stopping.patience"),
        (["early_stopping.patience=1", "early_stopping.min_delta=-0.1"], "train.early_stopping.min_delta"),
        (["early_stopping.min_delta=0.1"], "train.early_stopping.patience"),
        (["early_stopping.patience=1", "early_stopping.min_delta=.inf"], "train.early_stopping.min_delta"),
        (["early_stopping.patience=1", "early_stopping.delta=1"], "train.early_stopping.delta"),
    ],
)
def test_bad_settings_are_named(values: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_spec("sentiment", [f"train.{value}" for value in values])
    assert named in str(error.value)


def test_without_a_validation_split_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.early_stopping: given, and data\.split\.validation is 0"):
        load_spec("sentiment", ["train.early_stopping.patience=2", "data.split.validation=0"])


class FakeEngine:
    """Saves and loads the number of steps that it has taken."""

    def __init__(self) -> None:
        self.steps = 0
        self.checkpoint_engine = SimpleNamespace()
        self.module = torch.nn.Linear(1, 1)

    def zero_optimization_stage(self) -> int:
        return 1

    def save_checkpoint(self, folder: str, tag: str, **_: bool) -> None:
        (Path(folder) / tag).mkdir()
        self.checkpoint_engine.save({"steps": self.steps}, str(Path(folder) / tag / "steps.pt"))

    def load_checkpoint(self, folder: str, tag: str, load_module_strict: bool) -> tuple[str, dict[str, Any]]:
        self.steps = torch.load(Path(folder) / tag / "steps.pt")["steps"]
        return folder, {}


class KilledError(Exception):
    """The workers are lost here."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Storage, and a loop whose steps and validations cost nothing."""

    def step(run: Run, plan: Any, step: int, steps: int) -> StepStats:
        run.engine.steps += 1
        return StepStats(step + 1, steps, 1.0, 0.1, 1.0, 0.1, 1, 1, 1)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "validate", lambda run: {"accuracy": CURVE[run.engine.steps // 2 - 1]})
    return open_store(str(tmp_path / "storage"))


def make_run(store: Store, killed_at: int = 0, **settings: Any) -> Run:
    train = TrainConfig.model_validate({"global_batch_size": 2, "max_steps": STEPS, "validate_every": 2, **settings})
    task: Any = SimpleNamespace(metric="accuracy", mode="max")
    rows: Any = SimpleNamespace(lengths=np.ones(2 * STEPS, int), targets=np.ones(2 * STEPS, int))
    points = Checkpoints(store, "runs/a/1/checkpoints", ALONE, {}, keep=train.keep_checkpoints)

    def on_step(stats: StepStats) -> None:
        if stats.step == killed_at:
            points.wait()
            raise KilledError

    return Run(
        task, FakeEngine(), train, rows, rows, ALONE, points, on_step,
        patience=patience_of(train.early_stopping, "accuracy", "max"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"patience": 1}, 6),
        ({"patience": 2}, 14),
        ({"patience": 2, "min_delta": 0.01}, 12),
        ({"patience": 3}, STEPS),
        ({"patience": 3, "min_delta": 0.01}, 14),
    ],
)
@pytest.mark.parametrize("every", [1, 2, 5])
def test_a_run_that_is_killed_over_and_over_ends_where_one_left_alone_does(
    store: Store, settings: dict[str, Any], ends: int, every: int
) -> None:
    for killed_at in (3, 4, 5, 9, 11, 12, 13, 14):
        run = make_run(store, killed_at, early_stopping=settings, checkpoint_every=every)
        try:
            list(fit(run))
        except KilledError:
            continue
        break
    run = make_run(store, early_stopping=settings, checkpoint_every=every)
    list(fit(run))
    assert run.engine.steps == ends
    early = run.patience.stop()
    assert (early.step if early else STEPS) == ends


def test_the_best_weights_are_stored_and_restored_however_rare_checkpoints_are(store: Store) -> None:
    run = make_run(store, early_stopping={"patience": 2}, checkpoint_every=9999)
    reports = list(fit(run))
    assert [report.step for report in reports] == [2, 4, 6, 8, 10, 12, 14]
    assert run.engine.steps == 14
    restore_best(run)
    assert run.engine.steps == 10


def test_a_run_that_ended_and_is_resumed_before_it_has_published_trains_nothing(store: Store) -> None:
    list(fit(make_run(store, early_stopping={"patience": 2})))
    again = make_run(store, killed_at=15, early_stopping={"patience": 2})
    assert list(fit(again)) == []
    assert again.engine.steps == 14
    early = again.patience.stop()
    assert early is not None
    assert (early.step, early.steps, early.since) == (14, STEPS, 10)


def test_the_rates_are_those_of_the_whole_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    step = loop.train_step

    def seen(run: Run, plan: Any, number: int, steps: int) -> StepStats:
        asked.append((number, steps))
        return step(run, plan, number, steps)

    monkeypatch.setattr(loop, "train_step", seen)
    list(fit(make_run(store, early_stopping={"patience": 1})))
    assert asked == [(number, STEPS) for number in range(6)]


def test_the_published_model_says_where_the_run_ended(tmp_path: Path) -> None:
    spec = load_spec("sentiment", ["train.early_stopping.patience=2"])
    job = Job(
        name=spec.name, task=spec.task, run_id="r", model=spec.model, data=spec.data, data_fingerprint="f",
        train=spec.train, storage=spec.storage, spec="",
    )  # fmt: skip
    early = EarlyStop(step=4, steps=9, metric="accuracy", patience=2, min_delta=0.0, since=2)
    parts: Any = SimpleNamespace(prepared=SimpleNamespace(labels=["a"]))
    test: Any = SimpleNamespace(metrics={"accuracy": 0.5})
    for ended in (early, None):
        write_description(tmp_path, describe(job, parts, torch.nn.Linear(1, 1), test, ended))
        assert read_description(tmp_path).stopped_early == ended
    assert contract(job)["train.early_stopping"] == {"patience": 2, "min_delta": 0.0}
    assert contract(job)["train.stages"] == []


def test_a_run_without_the_key_keeps_the_checkpoints_that_it_kept(store: Store) -> None:
    run = make_run(store, checkpoint_every=5, keep_checkpoints=99)
    list(fit(run))
    assert isinstance(run.patience, Patience)
    assert run.checkpoints is not None
    assert [record["step"] for record in run.checkpoints.records()] == [5, 10, 15, 20]
