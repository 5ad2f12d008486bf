"""Metrics of a model over a split, computed by all workers together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from heliostat.train.classification import Bin
from heliostat.train.distributed import World
from heliostat.train.rows import Rows
from heliostat.train.tasks.base import Task

BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What a model did on a split; the same on every rank."""

    metrics: dict[str, float]
    outputs: np.ndarray
    """The task's outputs of each record, in the order of the split: float32 [records, numbers]."""
    confusion: list[list[int]] | None
    """Records by [true class][predicted class]; None for tasks without classes."""
    reliability: list[Bin] | None
    """How often the model is right by how sure it is; None for tasks without classes."""


def evaluate(task: Task, model: torch.nn.Module, rows: Rows, world: World) -> Evaluation:
    """Runs `model` over `rows`, each rank over its share, and computes the task's metrics over all of them.

    Every rank makes the same number of passes (repeating one where its share is shorter), as ZeRO stage 3 needs.
    """
    batches = np.array_split(np.argsort(rows.lengths, kind="stable"), -(-len(rows) // BATCH))
    passes = -(-len(batches) // world.size)
    mine = [batches[(i * world.size + world.rank) % len(batches)] for i in range(passes)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        outputs = [task.outputs(model, world.to_device(task.collate(rows, indices))) for indices in mine]
    model.train(was_training)
    indices, values = np.concatenate(mine), np.concatenate(outputs)
    whole = np.empty((len(rows), values.shape[1]), dtype=np.float32)
    for share, numbers in zip(world.gather(indices), world.gather(values), strict=True):
        whole[share] = numbers
    return Evaluation(task.metrics(whole, rows), whole, task.confusion(whole, rows), task.reliability(whole, rows))
