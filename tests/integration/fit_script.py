"""Run by torchrun: the real loop, once for each mapping of `train` values in the JSON list given.

Rank 0 writes what came of each run to stdout as one JSON list. Beside `train` keys a mapping may have `stop_at`, the
step after which the run is cut off, and `checkpoints`, where its checkpoints are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from heliostat.infra.config import build
from heliostat.infra.storage import StorageConfig, open_store
from heliostat.train import tasks
from heliostat.train.checkpoint import Checkpoints
from heliostat.train.config import TrainConfig
from heliostat.train.data import Prepared, open_prepared
from heliostat.train.distributed import World, join, settle
from heliostat.train.engine import build_engine, gathered_weights
from heliostat.train.loop import Run, StepStats, fit
from heliostat.train.rows import Rows


class CutOffError(Exception):
    """The run ends here, as if its worker were lost."""


def train(folder: Path, prepared: Prepared, world: World, values: dict[str, Any]) -> dict[str, Any]:
    """One run; its losses and gradient norms by step, its last metrics, and the sum of each of its weights."""
    stop_at, place = values.pop("stop_at", None), values.pop("checkpoints", None)
    config, task = build(TrainConfig, values), tasks.get((folder / "task").read_text())
    torch.manual_seed(config.seed)
    engine = build_engine(task.load_model(folder / "model", prepared.labels, config.dropout), config, world.device)
    losses, norms, reports = [], [], []

    def on_step(stats: StepStats) -> None:
        losses.append(stats.loss)
        norms.append(stats.grad_norm)
        if stats.step == stop_at:
            raise CutOffError

    rows, validation = (Rows(prepared.split(split), prepared.labels) for split in ("train", "validation"))
    points = Checkpoints(open_store(str(folder / "storage")), place, world, {}) if place else None
    try:
        reports = list(fit(Run(task, engine, config, rows, validation, world, points, on_step)))
    except CutOffError:
        assert points is not None
        points.wait()
    sums = {name: float(value.double().sum()) for name, value in gathered_weights(engine)}
    engine.destroy()
    return {"losses": losses, "norms": norms, "metrics": reports[-1].metrics if reports else None, "sums": sums}


def main(folder: Path, runs: list[dict[str, Any]]) -> None:
    """All runs, one after another, in the same processes."""
    settle(1)
    world = join("cpu")
    prepared = open_prepared(StorageConfig(url=str(folder / "storage")), (folder / "fingerprint").read_text())
    results = [train(folder, prepared, world, values) for values in runs]
    if world.is_first:
        sys.stdout.write("RESULT " + json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
