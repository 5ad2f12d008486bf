"""Run by torchrun: a few steps of the real loop on the folder given, the losses to stdout as JSON by rank 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from heliostat.infra.config import build
from heliostat.infra.storage import StorageConfig, open_store
from heliostat.train import tasks
from heliostat.train.checkpoint import Checkpoints
from heliostat.train.config import TrainConfig
from heliostat.train.data import open_prepared
from heliostat.train.distributed import join, settle
from heliostat.train.engine import build_engine, gathered_weights
from heliostat.train.loop import Run, StepStats, fit
from heliostat.train.rows import Rows


def main(folder: Path, values: dict[str, object]) -> None:
    """Trains on the prepared data in `folder` with `values` as the `train` section."""
    settle(1)
    world = join("cpu")
    storage = StorageConfig(url=str(folder / "storage"))
    prepared = open_prepared(storage, (folder / "fingerprint").read_text())
    stop_at = int(str(values.pop("stop_at", 0)))
    train = build(TrainConfig, values)
    task = tasks.get("text-classification")
    torch.manual_seed(train.seed)
    model = task.load_model(folder / "model", prepared.labels, train.dropout)
    engine = build_engine(model, train, world.device)
    losses: list[float] = []
    norms: list[float] = []

    def on_step(stats: StepStats) -> None:
        losses.append(stats.loss)
        norms.append(stats.grad_norm)
        if stop_at and stats.step == stop_at:
            raise KeyboardInterrupt

    rows, validation = (Rows(prepared.split(split), prepared.labels) for split in ("train", "validation"))
    points = Checkpoints(open_store(storage), "checkpoints", world, {}) if train.checkpoint_every else None
    reports = []
    try:
        reports = list(fit(Run(task, engine, train, rows, validation, world, points, on_step)))
    except KeyboardInterrupt:
        assert points is not None
        points.wait()
    sums = {name: float(value.double().sum()) for name, value in gathered_weights(engine)}
    if world.is_first:
        out = {"losses": losses, "norms": norms, "metrics": reports[-1].metrics if reports else None, "sums": sums}
        sys.stdout.write("RESULT " + json.dumps(out) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
