"""Builds a run from its inputs, for a training job and for a trial of a search alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from heliostat.train import tasks
from heliostat.train.config import TrainConfig
from heliostat.train.data.prepared import Prepared, open_prepared
from heliostat.train.data.rows import Rows
from heliostat.train.engine import build_engine
from heliostat.train.job import Job
from heliostat.train.loop import Run
from heliostat.train.models import adapters
from heliostat.train.models.bases import base_folder, rows_of
from heliostat.train.parallel.distributed import World
from heliostat.train.tasks.base import Task
from heliostat.train.telemetry.clocks import Clocks, time_collectives


@dataclass(frozen=True)
class RunInputs:
    """What runs are built from, loaded on this worker."""

    task: Task
    base: Path
    """The folder of the base model."""
    prepared: Prepared

    def rows(self, split: str) -> Rows:
        """The records of `train`, `validation` or `test`."""
        return rows_of(self.prepared, split)

    def model(self, train: TrainConfig) -> torch.nn.Module:
        """The base model, identical on every worker: a new head is initialised with the run's seed."""
        torch.manual_seed(train.seed)
        model = self.task.load_model(self.base, tuple(self.prepared.labels), train.dropout)
        if train.adapter:
            adapters.attach(model, train.adapter)
        return model


def load_run_inputs(job: Job) -> RunInputs:
    """Finds the base model and the prepared data; downloads them to this node if they are stored elsewhere."""
    prepared = open_prepared(job.storage, job.data_fingerprint)
    return RunInputs(tasks.get(job.task), base_folder(job.model, job.data, prepared, job.storage), prepared)


def build_run(inputs: RunInputs, train: TrainConfig, world: World, limit: int | None) -> Run:
    """The run that `train` describes, with micro-batches of at most `limit` records.

    It has neither checkpoints nor reports: whoever needs them adds them.
    """
    engine = build_engine(inputs.model(train), train, world, limit)
    clocks = Clocks(world.device)
    time_collectives(clocks.communication)  # only now: what the engine broadcasts belongs to no step
    return Run(
        task=inputs.task,
        engine=engine,
        train=train,
        rows=replace(inputs.rows("train"), balanced=train.is_balanced),
        validation=inputs.rows("validation"),
        world=world,
        clocks=clocks,
    )
