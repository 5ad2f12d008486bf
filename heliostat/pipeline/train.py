"""Trains a model and publishes it as the next version, with metrics in MLflow and a report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.infra.errors import StorageError
from heliostat.infra.tracing import semconv
from heliostat.infra.tracing.settings import TRACEPARENT
from heliostat.infra.tracing.tracer import traced
from heliostat.pipeline.job import make_job
from heliostat.pipeline.promotion import gate
from heliostat.pipeline.report import event_metrics, merge_curves, report_on_run
from heliostat.pipeline.runs import driving, new_run_id, read_run, write_run
from heliostat.results import Curves, TrainingResult
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.infra.tracked_run import Run
    from heliostat.train.data.prepared import Prepared

_log = log.get(__name__)
NEXT = "HELIOSTAT_NEXT"
"""Variable: the command that serves what is trained here, where that is not `heliostat serve SPEC`, as in a job."""


def run(
    spec: Spec, prepared: Prepared, view: View, run_id: str | None = None, search: str | None = None
) -> TrainingResult:
    """Trains, evaluates and publishes the next version of the model; the first becomes `production`.

    So does a better one, if `train.promote` says so.

    If a run called `run_id` was interrupted, it resumes from its newest complete checkpoint. What MLflow does not take,
    the registration too, waits in storage. `search` is the `SEARCH/TRIAL` whose values the spec has: model, run and
    report name it.
    Raises ResourceError if another process drives that run.
    """
    run_id = run_id or new_run_id()
    span = {semconv.RUN: run_id, semconv.MODEL: spec.name, semconv.WORKERS: spec.train.workers.max}
    with driving(spec, run_id), traced("train", span, os.environ.get(TRACEPARENT, "")):
        trained = _run(spec, prepared, view, run_id, search)
    view.trained(trained)
    return trained


def _run(spec: Spec, prepared: Prepared, view: View, run_id: str, search: str | None) -> TrainingResult:
    from heliostat.infra.tracked_run import start_run
    from heliostat.train import tasks
    from heliostat.train.launch import launch

    record = read_run(spec, run_id)
    search = search or record.get("search")
    job = make_job(spec, prepared, run_id, search)
    settings = spec.train.model_dump(mode="json", exclude={"precision"})  # the workers say what it is on their devices
    params = {**settings, "model": spec.model.origin, "data": prepared.fingerprint}
    tags = {"heliostat.kind": "run", "heliostat.run_id": run_id, **({"heliostat.search": search} if search else {})}
    with start_run(spec.storage, spec.name, run_id, params, tags, run_id=record.get("mlflow")) as run:
        about = {"mlflow": run.id, "search": search}
        write_run(spec, run_id, {**about, "status": "running"})
        seen: Curves = {}
        with view.training() as on_event:

            def handle(event: Mapping[str, Any]) -> None:
                values, step = event_metrics(event), event.get("step", 0)
                run.log(values, step)
                for name, value in values.items():
                    seen.setdefault(name, {})[step] = value
                if event["kind"] == "precision":
                    run.param("precision", event["precision"])
                on_event(event)

            result = launch(job, handle)
        if result.get("stopped_early"):
            run.tag("heliostat.stopped_early", result["stopped_early"])
        model = gate(spec, register(spec, run, result), prepared, view)
        curves = merge_curves(run, seen, tasks.get(spec.task).metric) if record else seen
        trained = TrainingResult(run_id, model, {**result, "search": search}, run.url, curves)
        trained.report = report_on_run(spec, prepared, run, trained)
        write_run(spec, run_id, {**about, "status": "finished", "version": model.version or None})
    return trained


def register(spec: Spec, run: Run, result: Mapping[str, Any]) -> ModelVersion:
    """Registers the published files as the model's next version, or lets that wait if MLflow fails."""
    from heliostat.infra.registry import registry
    from heliostat.infra.waiting import Publication

    made = Publication(spec.name, result["url"], result["digest"], dict(result["metrics"]))
    run.flush()
    try:
        if not run.connection.is_away:
            return registry.publish(spec.storage, made, run.id)
    except StorageError as error:
        _log.warning("the model is published, but not registered: %s", error)
    run.register_later(made)
    return registry.unregistered(made, run.id)
