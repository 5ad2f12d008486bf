"""Computes metrics of a model on a split, on all workers together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heliostat.infra import log
from heliostat.infra.tracing.span import part
from heliostat.train.config import TrainConfig
from heliostat.train.data.rows import Rows
from heliostat.train.metrics.classification import Bin
from heliostat.train.parallel.distributed import World
from heliostat.train.tasks.base import Example, Task

BATCH = 32
WORST = 20
"""Largest number of worst records in a report."""


@dataclass(frozen=True)
class Evaluation:
    """Results of a model on a split; the same on every rank."""

    metrics: dict[str, float]
    outputs: np.ndarray
    """The task's outputs for each record, in the order of the split: float32 [records, numbers]."""
    confusion: list[list[int]] | None
    """Records by [true class][predicted class]; None for tasks without classes."""
    reliability: list[Bin] | None
    """Accuracy by confidence; None for tasks without classes."""


@part("evaluate")
def evaluate(
    task: Task,
    model: torch.nn.Module,
    rows: Rows,
    world: World,
    train: TrainConfig = TrainConfig(),
    on_pass: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Runs `model` on `rows`, each rank on its share, and computes the task's metrics over all of them.

    `on_pass` is called after each pass with the number of its records.
    Every rank makes the same number of passes (repeating batches if its share is smaller), as ZeRO stage 3 requires.
    Tensor-parallel workers of a group have the same share. A split without records has no metrics.
    """
    if not len(rows):
        return Evaluation({}, np.empty((0, 0), dtype=np.float32), None, None)
    batches = np.array_split(np.argsort(rows.lengths, kind="stable"), -(-len(rows) // records_at_once(train)))
    shares = world.size // train.tensor_parallel
    passes = -(-len(batches) // shares)
    mine = [batches[(i * shares + world.rank // train.tensor_parallel) % len(batches)] for i in range(passes)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        outputs = []
        for indices in mine:
            outputs.append(task.outputs(model, world.to_device(task.collate(rows, indices))))
            on_pass(len(indices))
    model.train(was_training)
    indices, values = np.concatenate(mine), np.concatenate(outputs)
    whole = np.empty((len(rows), values.shape[1]), dtype=np.float32)
    for share, numbers in zip(world.gather(indices), world.gather(values), strict=True):
        whole[share] = numbers
    return Evaluation(task.metrics(whole, rows), whole, task.confusion(whole, rows), task.reliability(whole, rows))


def records_at_once(train: TrainConfig) -> int:
    """Batch size without gradients; 1 with sequence parallelism, whose records are long."""
    return BATCH if train.sequence_parallel == 1 else 1


def findings(task: Task, evaluation: Evaluation, rows: Rows, folder: Path) -> dict[str, Any]:
    """Test results as plain values: `metrics`, `confusion`, `reliability`, `worst`, `labels`.

    `folder` holds the model's tokenizer.
    """
    return {
        "metrics": evaluation.metrics,
        "confusion": evaluation.confusion,
        "reliability": [asdict(one) for one in evaluation.reliability or ()],
        "worst": worst(task, evaluation, rows, folder),
        "labels": list(rows.labels),
    }


def worst(task: Task, evaluation: Evaluation, rows: Rows, folder: Path) -> list[Example] | None:
    """The records with the worst predictions; None on errors, which must not fail a run that has already published."""
    if not len(rows):
        return []
    try:
        return task.worst(evaluation.outputs, rows, folder, WORST)
    except Exception:
        private = {"private": True}  # an error about records may quote them
        log.get(__name__).warning("the worst records of the test split are not known", exc_info=True, extra=private)
        return None
