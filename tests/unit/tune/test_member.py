"""A trial is built as a run of the same settings is."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

from heliostat.infra.storage.config import StorageConfig
from heliostat.train import build, loop, worker
from heliostat.train.build import RunInputs
from heliostat.train.config import TrainConfig
from heliostat.train.data.config import Augment, DataConfig
from heliostat.train.data.prepared import Prepared
from heliostat.train.job import Job
from heliostat.train.loop import Run
from heliostat.train.models.architectures.config import ModelConfig
from heliostat.train.parallel import distributed
from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.clocks import Clocks
from heliostat.tune.member import Member
from heliostat.tune.work import Place

OF_ITS_OWN = {"checkpoints", "on_step", "notices", "on_evaluated", "patience"}
"""Parts that a trial has of its own, or none: its checkpoints are the search's, and the scheduler ends it."""
PLACE = Place("runs/tiny/s/trials/0/001", "runs/tiny/s/trials/0", 0, 0.0)

METHODS: dict[str, Any] = {"destroy": lambda: None, "train_micro_batch_size_per_gpu": lambda: 1}
"""Of an engine."""


class Head:
    """A task of models of one layer."""

    mode, metric = "max", "accuracy"

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Dropout(dropout or 0.0), torch.nn.Linear(4, len(labels)))


@pytest.fixture
def inputs(tmp_path: Path) -> RunInputs:
    """Twelve records, of which three quarters are good."""
    table = pa.table({"label": ["bad", "good", "good", "good"] * 3, "length": [1] * 12, "targets": [1] * 12})
    for split in ("train", "validation"):
        with pa.OSFile(str(tmp_path / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    task: Any = Head()
    return RunInputs(task, tmp_path, Prepared("f", "u", tmp_path, ("bad", "good"), {}))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    train = {"class_weights": "balanced", "dropout": 0.25, "seed": 7, "validate_every": 1, "precision": "fp32"}
    return Job(
        name="tiny", task="text-classification", run_id="r", model=ModelConfig(source="x"),
        data=DataConfig(source="x"), data_fingerprint="f", train=TrainConfig.model_validate(train),
        storage=StorageConfig(url=str(tmp_path)), spec="",
    )  # fmt: skip


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that trials train; engines are what they are built from."""
    runs: list[Run] = []

    def fit(run: Run) -> Any:
        runs.append(run)
        return iter(())

    def engine(model: torch.nn.Module, train: TrainConfig, world: World, limit: int | None) -> Any:
        return SimpleNamespace(model=model, train=train, world=world, limit=limit, **METHODS)

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(build, "build_engine", engine)
    monkeypatch.setattr(build, "time_collectives", lambda _: None)
    monkeypatch.setattr(worker, "peak_flops", lambda *_: 1.0)
    monkeypatch.setattr(distributed, "configure_process", lambda _: None)
    monkeypatch.setattr(distributed, "join", lambda _: World(0, 1, "cpu"))
    monkeypatch.setattr(loop, "fit", fit)
    return runs


def content(value: Any) -> Any:
    """What can be compared of a part of a run."""
    if isinstance(value, SimpleNamespace):
        return {name: content(part) for name, part in vars(value).items() if name not in METHODS}
    if isinstance(value, torch.nn.Module):
        return str(value), {name: weight.tolist() for name, weight in value.state_dict().items()}
    if isinstance(value, Clocks):
        return type(value)
    return value


def test_a_trial_is_made_of_what_a_run_is_made_of(
    inputs: RunInputs, job: Job, built: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_run_inputs", lambda _: inputs)
    member = Member(1)
    member.join(0, 1, "localhost", 1)
    member.begin(job.model_dump(mode="json"), 1.0, PLACE, None)
    assert gc.get_freeze_count()  # collections during trials leave out what all trials share
    gc.unfreeze()
    run = worker.build_observed_run(job, inputs, World(0, 1, "cpu"), None, lambda *_: None, None)
    (trial,) = built
    assert trial.rows.weights is not None
    for part in dataclasses.fields(Run):
        if part.name not in OF_ITS_OWN:
            assert content(getattr(trial, part.name)) == content(getattr(run, part.name)), part.name


def test_a_trial_with_other_data_settings_has_inputs_of_its_own(
    inputs: RunInputs, job: Job, built: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []

    def remember(one: Job) -> RunInputs:
        asked.append(one)
        return inputs

    monkeypatch.setattr(build, "load_run_inputs", remember)
    member = Member(1)
    member.join(0, 1, "localhost", 1)
    other = job.model_copy(update={"data": job.data.model_copy(update={"augment": Augment(flip=True)})})
    for one in (job, other, job, other):
        member.begin(one.model_dump(mode="json"), 1.0, PLACE, None)
    gc.unfreeze()
    assert [one.data.augment for one in asked] == [job.data.augment, other.data.augment]


def test_a_stop_that_comes_before_a_trial_has_begun_holds_for_it(
    inputs: RunInputs, job: Job, built: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_run_inputs", lambda _: inputs)
    member = Member(1)
    member.join(0, 1, "localhost", 1)
    member.stop()
    member.begin(job.model_dump(mode="json"), 1.0, PLACE, None)
    gc.unfreeze()
    (trial,) = built
    assert trial.notices.is_due()
    assert trial.notices.ask() == "stop"
