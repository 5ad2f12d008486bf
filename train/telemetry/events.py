"""Reports steps and checkpoints of a worker: metrics and spans from every rank, events from rank 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from heliostat.infra.memory import peak_resident_bytes
from heliostat.infra.metrics import of_training
from heliostat.infra.metrics.export import Record
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing.span import Span, current
from heliostat.train.checkpoints.checkpoint import StoreStats
from heliostat.train.job import Job
from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.stats import StepStats

TRACED_STEPS = 10
"""One step in so many is a span, the same ones on every rank."""


def post_event(channel: Any, world: World, kind: str, event: dict[str, Any]) -> None:
    """Posts an event from rank 0 without waiting."""
    if world.is_first:
        channel.post.remote({"kind": kind, **event})


def metric_labels(job: Job, world: World) -> dict[str, str]:
    """Labels of this worker's metrics."""
    return {"model": job.name, "run": job.run_id, "rank": str(world.rank)}


def step_reporter(job: Job, channel: Any, world: World, peak: float, record: Record) -> Callable[[StepStats], None]:
    """A callback for each step: metrics and spans from every rank, an event from rank 0.

    `peak` is the device's FLOP/s. Spans belong to that of the caller, if it has one.
    """
    labels, span = metric_labels(job, world), current()

    def on_step(stats: StepStats) -> None:
        rates, memory = stats.rates, peak_memory_bytes(world.device)
        mfu = rates["flops_per_second"] / peak
        for metric, value in (
            (of_training.LOSS, stats.loss),
            (of_training.LEARNING_RATE, stats.learning_rate),
            (of_training.GRAD_NORM, stats.grad_norm),
            (of_training.STEPS, 1),
            (of_training.SKIPPED_STEPS, 0 if stats.is_finite else 1),
            (of_training.SAMPLES, stats.samples),
            (of_training.TOKENS, stats.tokens),
            (of_training.STEP_SECONDS, stats.seconds),
            (of_training.MFU, mfu),
            (of_training.MEMORY_BYTES, memory),
        ):
            record(metric, value, labels)
        for cause, seconds in (("data", stats.data_seconds), ("communication", stats.communication_seconds)):
            record(of_training.WAIT_SECONDS, seconds, {**labels, "cause": cause})
        post_event(channel, world, "step", {**asdict(stats), **rates, "mfu": mfu, "memory_bytes": memory})
        if span is not None and stats.step % TRACED_STEPS == 0:
            trace_step(span, stats, job, world)

    return on_step


def trace_step(span: Span, stats: StepStats, job: Job, world: World) -> None:
    """Records a step that has just ended, as a trace of its own: a run of millions of steps is no readable trace."""
    numbers = {
        semconv.RUN: job.run_id,
        semconv.RANK: world.rank,
        semconv.STEP: stats.step,
        semconv.LOSS: stats.loss,
        semconv.TOKENS_TRAINED: stats.tokens,
        semconv.DATA_SECONDS: stats.data_seconds,
        semconv.COMMUNICATION_SECONDS: stats.communication_seconds,
    }
    span.add_linked("step", stats.seconds, numbers)


def report_start(job: Job, world: World, record: Record, restart_reason: str) -> None:
    """Records that this worker begins, and how many there are; rank 0 why after others of its run, if so."""
    labels = metric_labels(job, world)
    record(of_training.STARTS, 1, labels)
    record(of_training.WORKERS, world.size, labels)
    if restart_reason:
        record(of_training.RESTARTS, 1, {**labels, "restart_reason": restart_reason})


def evaluation_reporter(job: Job, world: World, record: Record) -> Callable[[int], None]:
    """A callback for each pass of an evaluation, with the number of its records: a metric."""
    labels = metric_labels(job, world)
    return lambda records: record(of_training.EVALUATED, records, labels)


def store_reporter(job: Job, world: World, record: Record) -> Callable[[StoreStats], None]:
    """A callback for each stored checkpoint of this rank: metrics, and a span below that of the caller."""
    labels, span = metric_labels(job, world), current()

    def on_stored(stats: StoreStats) -> None:
        record(of_training.CHECKPOINT_SECONDS, stats.store_seconds, labels)
        record(of_training.CHECKPOINT_BYTES, stats.bytes, labels)
        record(of_training.CHECKPOINT_TIMESTAMP_SECONDS, time.time(), labels)
        record(of_training.CHECKPOINTS, 1, labels)
        record(of_training.WAIT_SECONDS, stats.wait_seconds, {**labels, "cause": "checkpoint"})
        if span is not None:
            whole = {semconv.RANK: world.rank, semconv.STEP: stats.step, semconv.BYTES: stats.bytes}
            span.add("checkpoint", stats.wait_seconds + stats.store_seconds, whole).add("upload", stats.store_seconds)

    return on_stored


def peak_memory_bytes(device: str) -> int:
    """Peak memory of this worker: of the GPU, or of the process if there is none."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident_bytes()
