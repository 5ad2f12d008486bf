"""The training loop.

`fit` is a generator that yields at each validation, so that Ray Train can report it, warm workers of a search can
advance it trial by trial, and tests can step through it, all with the same code. Closing it stops the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import torch

from heliostat.infra.errors import StoppedError
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.config import TrainConfig
from heliostat.train.data.batches import BatchPlan
from heliostat.train.data.rows import Rows
from heliostat.train.early_stopping import Patience
from heliostat.train.engine import learning_rate, set_values
from heliostat.train.evaluation.evaluate import evaluate
from heliostat.train.parallel.distributed import World
from heliostat.train.parallel.sharding import replica
from heliostat.train.parallel.ulysses import part
from heliostat.train.randomness import seeded
from heliostat.train.stages import train_at
from heliostat.train.tasks.base import Task
from heliostat.train.telemetry.clocks import Clocks
from heliostat.train.telemetry.flops import Flops
from heliostat.train.telemetry.nonfinite import NonFiniteGuard
from heliostat.train.telemetry.notices import Notices
from heliostat.train.telemetry.stats import Report, StepStats


@dataclass(frozen=True)
class Run:
    """Everything that `fit` needs; the same on every rank except `world`."""

    task: Task
    engine: Any
    """The DeepSpeed engine around the model."""
    train: TrainConfig
    rows: Rows
    validation: Rows
    world: World
    checkpoints: Checkpoints | None = None
    on_step: Callable[[StepStats], None] = lambda _: None
    on_evaluated: Callable[[int], None] = lambda _: None
    """Called with the number of records of each pass of a validation."""
    notices: Notices = field(default_factory=Notices)
    patience: Patience = field(default_factory=Patience)
    clocks: Clocks = field(default_factory=Clocks)

    @cached_property
    def flops(self) -> Flops:
        """FLOPs that the model needs per token."""
        return Flops.of(self.engine.module, self.train.tensor_parallel)


def fit(run: Run) -> Iterator[Report]:
    """Trains and yields a Report at each validation; all ranks must advance it together.

    Resumes from the newest complete checkpoint if `run.checkpoints` has one, and saves another when workers or the
    driver are about to stop. Raises StoppedError then, and TrainingError if the loss or gradients are NaN or infinite
    in too many steps in a row. Ends early once `run.patience` is over.
    """
    plan = BatchPlan(run.rows.lengths, run.rows.targets, run.train.global_batch_size, run.train.seed)
    steps = total_steps(run.train, plan.steps_per_epoch)
    every = run.train.validate_every or min(steps, plan.steps_per_epoch)
    if run.world.is_first:
        run.patience.check(-(-steps // every))
    start = resume(run)
    watch = NonFiniteGuard(run.world, run.train.max_skipped_steps, start)
    for step in range(start, steps):
        if run.patience.is_over:  # also where a run resumes after its last step
            break
        stats = train_step(run, plan, step, steps)
        run.on_step(stats)
        watch.check(stats)
        done = step + 1
        notice = run.notices.ask() if stats.asks else ""
        report = Report(done, steps, validate(run)) if done == steps or done % every == 0 else None
        improves = report is not None and run.patience.saw(report, run.world)
        last = done == steps or run.patience.is_over
        is_due = last or improves or notice or done % (run.train.checkpoint_every or every) == 0
        if run.checkpoints and stats.is_finite and is_due:
            run.checkpoints.save(run.engine, done, report.metrics if report else {}, run.patience.state())
            if notice in ("save", "hold"):
                run.checkpoints.wait()  # what is trained beyond it may be lost
                run.notices.saved()
            if notice == "hold":
                run.notices.hold()
        if report:
            yield report
        if notice == "stop" and not last:
            stop(run, done)
    if run.checkpoints:
        run.checkpoints.wait()


def resume(run: Run) -> int:
    """Restores the newest complete checkpoint, if there is one; returns the steps that it has taken."""
    if not run.checkpoints:
        return 0
    start = run.checkpoints.restore(run.engine)
    run.patience.resume(run.checkpoints.restored.get("patience", {}))
    return start


def stop(run: Run, done: int) -> NoReturn:
    """Ends a run that was asked to stop, after its checkpoint is stored; raises StoppedError."""
    if run.checkpoints:
        run.checkpoints.wait()
    raise StoppedError(f"stopped after step {done}; --resume goes on after the newest checkpoint, which is stored")


def total_steps(train: TrainConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    steps = max(1, round(train.epochs * steps_per_epoch))
    return min(steps, train.max_steps or steps)


def train_step(run: Run, plan: BatchPlan, step: int, steps: int) -> StepStats:
    """One optimizer step over one global batch.

    The summed loss of each micro-batch is divided by the number of targets in the global batch, so that the gradient is
    that of the mean over the global batch, however it is split. The factor undoes DeepSpeed's averaging over workers
    (tensor-parallel workers count once) and over gradient accumulation.
    """
    started = time.perf_counter()
    engine, world = run.engine, run.world
    batch = plan.at(step)
    place, replicas = replica(run.train, world.rank, world.size)
    micro_batches = plan.micro_batches(batch, place, replicas, engine.train_micro_batch_size_per_gpu())
    averaged = world.size // run.train.tensor_parallel
    scale = averaged * len(micro_batches) / max(1, run.rows.targets[batch].sum())
    now = train_at(run.train, step, steps)
    rate = learning_rate(now, step, steps)
    set_values(engine, now, rate)
    passes = seeded(micro_batches, run.train.seed, step, world.rank)
    scaled = [accumulate(run, indices, scale) for indices in passes]
    losses = torch.stack(scaled).tolist()  # the first line that waits for the device
    loss, asking = world.sum(sum(losses) / (world.size * len(micro_batches)), float(run.notices.is_due()))
    norm = engine.get_global_grad_norm()
    suspects = [indices for indices, part in zip(micro_batches, losses, strict=True) if not math.isfinite(part)]
    mine = np.concatenate(micro_batches)
    return StepStats(
        step=step + 1,
        steps=steps,
        loss=loss,
        learning_rate=rate,
        grad_norm=0.0 if norm is None else float(norm),
        seconds=time.perf_counter() - started,
        samples=share(run, len(mine)),
        micro_batch_size=engine.train_micro_batch_size_per_gpu(),
        tokens=share(run, int(run.rows.lengths[mine].sum())),
        asks=asking > 0,
        suspects=tuple(int(record) for indices in suspects for record in indices),
        data_seconds=run.clocks.data.take(),
        communication_seconds=run.clocks.communication.take(),
        flops=run.flops.needed(run.rows.lengths[mine], int(run.rows.targets[mine].sum()))
        / run.train.workers_per_replica,
    )


def share(run: Run, count: int) -> int:
    """This rank's part of a count that workers of a replica share; the parts of all ranks add up to it."""
    among = run.train.workers_per_replica
    return (count + run.world.rank % among) // among


def accumulate(run: Run, indices: np.ndarray, scale: float) -> torch.Tensor:
    """Forward and backward of one micro-batch; the engine steps after the last one. Returns the scaled loss (scalar).

    An empty micro-batch (in the short last batch of an epoch) runs one record with weight 0, since all ranks must take
    part in every collective operation.
    """
    among = run.train.sequence_parallel
    with run.clocks.data:
        row = run.task.collate(run.rows, indices if len(indices) else np.array([0]))
        batch = run.world.to_device(part(row, run.world.rank % among, among))
    loss = run.task.loss(run.engine, batch) * (scale if len(indices) else 0.0)
    run.engine.backward(loss)
    run.engine.step()
    return loss.detach()


def validate(run: Run) -> dict[str, float]:
    """Metrics on the validation split, the same on every rank."""
    return evaluate(run.task, run.engine, run.validation, run.world, run.train, run.on_evaluated).metrics
