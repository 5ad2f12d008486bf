"""The train function of a worker: join the process group, load, fit, evaluate, publish."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from heliostat import __version__
from heliostat.infra.errors import HeliostatError, StoppedError
from heliostat.infra.registry.published import PublishedModel
from heliostat.infra.storage.store import open_store
from heliostat.train import tasks
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.config import TrainConfig
from heliostat.train.data.prepared import Prepared, open_prepared
from heliostat.train.data.rows import Rows
from heliostat.train.engine import build_engine
from heliostat.train.evaluation.evaluate import Evaluation, evaluate, findings
from heliostat.train.job import Job
from heliostat.train.loop import Run, fit
from heliostat.train.micro_batch import fit_micro_batch, report_out_of_memory
from heliostat.train.models import adapters
from heliostat.train.models.architectures.network import Network
from heliostat.train.models.bases import base_folder, rows_of
from heliostat.train.parallel.distributed import World, configure_process, join
from heliostat.train.publish import publish
from heliostat.train.tasks.base import Task
from heliostat.train.telemetry.clocks import Clocks, time_collectives
from heliostat.train.telemetry.events import post_event, step_reporter, store_reporter
from heliostat.train.telemetry.flops import peak_flops
from heliostat.train.telemetry.notices import RayNotices


def work(config: dict[str, Any]) -> None:
    """The train function that Ray Train calls on every worker."""
    import ray

    job, channel = Job.model_validate(config["job"]), config["channel"]
    failed = ray.get(channel.error.remote())
    if failed:
        return  # launch reads the error from the channel; Ray would retry if this raised
    try:
        train(job, channel)
    except HeliostatError as error:
        ray.get(channel.post.remote({"kind": "error", "message": str(error)}))
        if not isinstance(error, StoppedError):  # all ranks have it; Ray would retry if it were raised
            raise


def train(job: Job, channel: Any) -> None:
    """Runs the job, from the base model to the published one."""
    import ray.train

    configure_process(job.train.cpus_per_worker)
    world = join("cuda" if torch.cuda.is_available() else "cpu")
    parts = load_run_inputs(job)
    limit = ray.get(channel.micro_batch_limit.remote())
    run = fit_micro_batch(lambda most: build_run(job, parts, world, channel, most), limit)
    with report_out_of_memory(run, channel):
        for report in fit(run):
            post_event(channel, world, "report", asdict(report))
            ray.train.report(report.metrics)
    restore_best(run)
    rows = parts.rows("test")
    test = evaluate(run.task, run.engine, rows, world, job.train)
    description = describe(job, parts, run.engine.module, test)
    published = publish(run, parts.base, description, job.spec, open_store(job.storage))
    post_event(channel, world, "result", {**asdict(published), **findings(run.task, test, rows, parts.base)})


@dataclass(frozen=True)
class RunInputs:
    """The parts of a run, loaded on this worker."""

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


def build_run(job: Job, parts: RunInputs, world: World, channel: Any, limit: int | None) -> Run:
    """Builds the engine and the checkpoints of a job on this worker, with micro-batches of at most `limit` records."""
    peak = peak_flops(world.device, job.train.precision)
    engine = build_engine(parts.model(job.train), job.train, world, limit)
    clocks = Clocks(world.device)
    time_collectives(clocks.communication)
    checkpoints = Checkpoints(
        open_store(job.storage),
        f"{job.prefix}/checkpoints",
        world,
        contract(job),
        job.train.keep_checkpoints,
        store_reporter(job, world),
        parts.task.mode,
        parts.task.metric,
    )
    return Run(
        parts.task,
        engine,
        job.train,
        replace(parts.rows("train"), balanced=job.train.is_balanced),
        parts.rows("validation"),
        world,
        checkpoints,
        step_reporter(job, channel, world, peak),
        RayNotices(world, channel),
        clocks,
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
        "class_weights",
        "tensor_parallel",
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


def describe(job: Job, parts: RunInputs, model: torch.nn.Module, test: Evaluation) -> PublishedModel:
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
        metrics=test.metrics,
        heliostat_version=__version__,
        created=datetime.now(timezone.utc),
    )
