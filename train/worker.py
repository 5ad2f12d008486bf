"""The train function of a worker: join the process group, load, fit, evaluate, publish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import torch

from heliostat import __version__
from heliostat.infra import log
from heliostat.infra.bf16 import has_bf16
from heliostat.infra.errors import HeliostatError, StoppedError
from heliostat.infra.log_fields import identify
from heliostat.infra.memory import freeze_heap
from heliostat.infra.metrics.catalogue import TRAINING
from heliostat.infra.metrics.export import Exporter, Record
from heliostat.infra.registry.published import EarlyStop, PublishedModel
from heliostat.infra.storage.measured import observed
from heliostat.infra.storage.store import open_store
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing.tracer import traced
from heliostat.train.build import RunInputs, build_run, load_run_inputs
from heliostat.train.checkpoints.checkpoint import Checkpoints, newest
from heliostat.train.early_stopping import patience_of
from heliostat.train.evaluation.evaluate import Evaluation, evaluate, findings
from heliostat.train.job import Job
from heliostat.train.loop import Run, fit
from heliostat.train.micro_batch import fit_micro_batch, report_out_of_memory
from heliostat.train.models.architectures.network import Network
from heliostat.train.parallel.distributed import World, configure_process, join
from heliostat.train.precision import explained, settled, with_precision
from heliostat.train.publish import publish
from heliostat.train.telemetry.events import (
    evaluation_reporter,
    metric_labels,
    post_event,
    report_start,
    step_reporter,
    store_reporter,
)
from heliostat.train.telemetry.flops import peak_flops
from heliostat.train.telemetry.heartbeat import Heartbeat
from heliostat.train.telemetry.notices import RayNotices
from heliostat.train.telemetry.stats import StepStats


def work(config: dict[str, Any]) -> None:
    """Runs on every worker: trains, or posts the error that ends the run."""
    import ray

    job, channel = Job.model_validate(config["job"]), config["channel"]
    identify(run=job.run_id, model=job.name)
    failed = ray.get(channel.error.remote())
    if failed:
        return  # launch reads the error from the channel; Ray would retry if this raised
    exporter, span = Exporter(), {semconv.RUN: job.run_id, semconv.MODEL: job.name, semconv.RANK: log.rank() or 0}
    try:
        with observed(exporter, job.storage.kind), traced("worker", span, config.get("traceparent", "")):
            train(job, channel, exporter)
    except HeliostatError as error:
        ray.get(channel.post.remote({"kind": "error", "message": str(error)}))
        if not isinstance(error, StoppedError):  # all ranks have it; Ray would retry if it were raised
            raise
    finally:
        exporter.flush()  # and it goes on until this process ends with the others: a rank that is done is not gone


def train(job: Job, channel: Any, exporter: Exporter) -> None:
    """Runs the job, from the base model to the published one."""
    import ray.train

    configure_process(job.train.cpus_per_worker)
    world = join("cuda" if torch.cuda.is_available() else "cpu")
    job = settle_precision(job, world, channel)
    exporter.begin(TRAINING, metric_labels(job, world))
    report_start(job, world, exporter.add, ray.get(channel.begin.remote()) if world.is_first else "")
    parts = load_run_inputs(job)
    freeze_heap()
    limit = ray.get(channel.micro_batch_limit.remote())
    run = fit_micro_batch(partial(build_observed_run, job, parts, world, channel, exporter.add), limit)
    with heartbeat(run, channel) as run:
        with report_out_of_memory(run, channel):
            for report in fit(run):
                post_event(channel, world, "report", asdict(report))
                ray.train.report(report.metrics)
        early = run.patience.stop()
        if early:
            post_event(channel, world, "early_stop", {"step": early.step, "message": early.words})
        restore_best(run)
        rows = parts.rows("test")
        test = evaluate(run.task, run.engine, rows, world, job.train, run.on_evaluated)
        description = describe(job, parts, run.engine.module, test, early)
        published = publish(run, parts.base, description, job.spec, open_store(job.storage), test)
    found = findings(run.task, test, rows, parts.base)
    ended = {"stopped_early": early.words if early else None, "precision": job.train.precision}
    post_event(channel, world, "result", {**asdict(published), **found, **ended})


def settle_precision(job: Job, world: World, channel: Any) -> Job:
    """The job with the precision of its run, the same on all ranks, which must call this together; an event tells it.

    A run that has a checkpoint keeps its precision. Otherwise, the least able worker decides what `auto` is.
    """
    lacking = round(world.sum(float(not has_bf16(world.device)))[0])
    before = world.from_first(lambda: begun_precision(job)) if job.train.precision == "auto" else None
    train = with_precision(job.train, before) if before else settled(job.train, job.model, not lacking)
    line = explained(settled(job.train, job.model, True).precision, train.precision, lacking, world.size)
    post_event(channel, world, "precision", {"precision": train.precision, "message": line})
    return job.model_copy(update={"train": train})


def begun_precision(job: Job) -> str | None:
    """The precision of the run's newest checkpoint; None if it has none."""
    record = newest(open_store(job.storage), f"{job.prefix}/checkpoints")
    return record["contract"]["train.precision"] if record else None


@contextmanager
def heartbeat(run: Run, channel: Any) -> Iterator[Run]:
    """The run, while the driver hears that this worker lives and what it does."""
    import ray.util

    rank, watched, tell = run.world.rank, run.clocks, run.on_step
    beating = Heartbeat(channel.beat.remote, rank, ray.util.get_node_ip_address(), watched)

    def on_step(stats: StepStats) -> None:
        beating.stepped(stats)
        tell(stats)

    try:
        yield replace(run, on_step=on_step)
    finally:
        beating.close()
        channel.leave.remote(rank)


def build_observed_run(
    job: Job, parts: RunInputs, world: World, channel: Any, record: Record, limit: int | None
) -> Run:
    """The run of a job, with its checkpoints and reports; micro-batches have at most `limit` records."""
    peak = peak_flops(world.device, job.train.precision)
    checkpoints = Checkpoints(
        open_store(job.storage),
        f"{job.prefix}/checkpoints",
        world,
        contract(job),
        job.train.keep_checkpoints,
        store_reporter(job, world, record),
        parts.task.mode,
        parts.task.metric,
    )
    return replace(
        build_run(parts, job.train, world, limit),
        checkpoints=checkpoints,
        on_step=step_reporter(job, channel, world, peak, record),
        on_evaluated=evaluation_reporter(job, world, record),
        notices=RayNotices(world, channel),
        patience=patience_of(job.train.early_stopping, parts.task.metric, parts.task.mode),
    )


def contract(job: Job) -> dict[str, Any]:
    """Settings that must not change between the run that wrote a checkpoint and the run that resumes from it."""
    keys = (
        "global_batch_size",
        "learning_rate",
        "schedule",
        "warmup",
        "epochs",
        "max_steps",
        "seed",
        "precision",
        "adapter",
        "betas",
        "stages",
        "class_weights",
        "tensor_parallel",
        "early_stopping",
    )
    settings = {f"train.{key}": value for key, value in job.train.model_dump(mode="json", include=set(keys)).items()}
    if job.train.tensor_parallel > 1:  # checkpoints of split layers cannot be loaded with another layout
        settings |= {"train.workers": job.train.workers.max, "train.zero_stage": job.train.zero_stage}
    model = job.model.model_dump(mode="json", exclude_none=True)
    return {**{f"model.{key}": value for key, value in model.items()}, "data": job.data_fingerprint, **settings}


def restore_best(run: Run) -> None:
    """Restores the checkpoint with the best validation metric if it is not the latest."""
    points = run.checkpoints
    assert points is not None
    best, latest = run.world.from_first(lambda: (points.best(), points.latest()))
    if best and latest and best["step"] != latest["step"]:
        points.restore(run.engine, best)


def describe(
    job: Job, parts: RunInputs, model: torch.nn.Module, test: Evaluation, early: EarlyStop | None
) -> PublishedModel:
    """The metadata of the published model."""
    return PublishedModel(
        name=job.name,
        task=job.task,
        labels=tuple(parts.prepared.labels),
        max_length=job.data.max_length,
        base_model=job.model.origin,
        inputs=model.inputs if isinstance(model, Network) else None,
        run_id=job.run_id,
        data_fingerprint=job.data_fingerprint,
        search=job.search,
        precision=job.train.precision,
        metrics=test.metrics,
        stopped_early=early,
        heliostat_version=__version__,
        created=datetime.now(timezone.utc),
    )
