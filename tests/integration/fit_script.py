"""Run by torchrun: the real loop, once for each mapping of `train` values in the JSON list given.

Rank 0 writes what came of each run to stdout as one JSON list. Beside `train` keys a mapping may have `stop_at`, the
step after which the run is cut off, `checkpoints`, where its checkpoints are, `poisoned`, the steps (from 0) whose
first record makes the loss no number, and `probed`, the records of a trial before the first step.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from weakref import ref

import numpy as np
import torch

from heliostat.infra.config.strict import build
from heliostat.infra.errors import TrainingError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train import tasks
from heliostat.train.build import RunInputs, build_run
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import BatchPlan
from heliostat.train.data.prepared import Prepared, open_prepared
from heliostat.train.data.rows import Rows
from heliostat.train.early_stopping import patience_of
from heliostat.train.engine import gathered_weights, release
from heliostat.train.loop import fit
from heliostat.train.micro_batch import probe
from heliostat.train.models.bases import rows_of
from heliostat.train.parallel.distributed import World, configure_process, join
from heliostat.train.tasks.base import Task
from heliostat.train.telemetry.stats import StepStats


class CutOffError(Exception):
    """The run ends here, as if its worker were lost."""


class Poisoned:
    """A task whose loss is no number where a batch has one of these records."""

    def __init__(self, task: Any, records: set[int]) -> None:
        self._task, self._records, self._factor = task, records, 1.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def collate(self, rows: Rows, indices: Any) -> Any:
        self._factor = float("nan") if self._records & set(indices.tolist()) else 1.0
        return self._task.collate(rows, indices)

    def loss(self, model: Any, batch: Any) -> Any:
        return self._task.loss(model, batch) * self._factor


def train(folder: Path, prepared: Prepared, world: World, values: dict[str, Any]) -> dict[str, Any]:
    """One run: by step its losses, gradient norms and the random stream of each rank; its last metrics, and the sum of
    each of its weights."""
    extras = ("stop_at", "checkpoints", "poisoned", "probed")
    stop_at, place, poisoned, probed = (values.pop(name, None) for name in extras)
    config, task = build(TrainConfig, values), tasks.get((folder / "task").read_text())
    if poisoned:
        rows = rows_of(prepared, "train")
        plan = BatchPlan(rows.lengths, rows.targets, config.global_batch_size, config.seed)
        task = cast("Task", Poisoned(task, {int(plan.at(step)[0]) for step in poisoned}))
    losses, norms, waits, streams, reports, error = [], [], [], [], [], None

    def on_step(stats: StepStats) -> None:
        losses.append(stats.loss)
        norms.append(stats.grad_norm)
        waits.append((stats.data_seconds, stats.communication_seconds, stats.seconds))
        streams.append([int(seed) for seed in world.gather(np.array(torch.initial_seed(), np.uint64))])
        if stats.step == stop_at:
            raise CutOffError

    points = Checkpoints(open_store(str(folder / "storage")), place, world, {}) if place else None
    run = build_run(RunInputs(task, folder / "model", prepared), config, world, None)
    patience = patience_of(config.early_stopping, task.metric, task.mode)
    run, engine = replace(run, checkpoints=points, on_step=on_step, patience=patience), run.engine
    try:
        if probed:
            probe(run, probed)
        reports = list(fit(run))
    except CutOffError:
        assert points is not None
        points.wait()
    except TrainingError as failure:
        error = str(failure)
    sums = {name: float(value.double().sum()) for name, value in gathered_weights(engine)}
    release(engine)
    model = ref(engine.module)
    del run, engine
    gc.collect()
    metrics = reports[-1].metrics if reports else None
    told = {"losses": losses, "norms": norms, "waits": waits, "streams": streams}
    return {**told, "metrics": metrics, "sums": sums, "error": error, "patience": patience.state(),
            "freed": model() is None}  # fmt: skip


def main(folder: Path, runs: list[dict[str, Any]]) -> None:
    """All runs, one after another, in the same processes."""
    configure_process(1)
    world = join("cpu")
    prepared = open_prepared(StorageConfig(url=str(folder / "storage")), (folder / "fingerprint").read_text())
    results = [train(folder, prepared, world, values) for values in runs]
    if world.is_first:
        sys.stdout.write("RESULT " + json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
