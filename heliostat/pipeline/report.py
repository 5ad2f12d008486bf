"""The HTML report of a run: built from MLflow and the workers' results, written to storage and to MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heliostat import __version__
from heliostat.infra import failures, log
from heliostat.infra.config.strict import dump_yaml
from heliostat.results import Curves
from heliostat.spec import Spec

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.infra.tracked_run import Run
    from heliostat.results import TrainingResult
    from heliostat.train.data.prepared import Prepared
    from heliostat.train.evaluation.report.page import Report

_log = log.get(__name__)
STEP_METRICS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "seconds",
    "data_seconds",
    "communication_seconds",
    "samples_per_second",
    "tokens_per_second",
    "mfu",
    "memory_bytes",
    "micro_batch_size",
)
"""Metrics of each step that are logged to MLflow; rates and seconds are those of rank 0."""


def event_metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in an event, by their names in MLflow."""
    if event["kind"] == "step":
        return {f"train/{name}": event[name] for name in STEP_METRICS}
    split = {"report": "validation", "result": "test"}.get(event["kind"])
    return {f"{split}/{name}": value for name, value in event["metrics"].items()} if split else {}


def merge_curves(run: Run, seen: Curves, metric: str) -> Curves:
    """The curves of a resumed run: those that MLflow has of earlier attempts, updated with `seen` by this process."""
    train = [f"train/{name}" for name in ("loss", "learning_rate", "grad_norm")]
    try:
        before = run.history([*train, "validation/loss", f"validation/{metric}"])
    except Exception as error:  # whatever error MLflow has, the run has published its model
        _log.warning("curves begin where this command does: %s", error)
        before = {}
    return {name: before.get(name, {}) | seen.get(name, {}) for name in {*before, *seen}}


def report_on_run(spec: Spec, prepared: Prepared, run: Run, trained: TrainingResult) -> str | None:
    """Stores the report of a run that has published its model, in storage and MLflow; returns its location in storage.

    None if that fails for any reason: the error is logged, and the run still succeeds.
    """
    subtitle = f"Version {trained.model.number}, published by run {trained.run_id}"
    more = {"base model": spec.model.origin, "run in MLflow": trained.tracking_url}
    if search := trained.result.get("search"):
        more["values of"] = f"trial {search}"
    if precision := trained.result.get("precision"):
        more["trained in"] = precision
    if early := trained.result.get("stopped_early"):
        more["stopped early"] = early
    key = f"runs/{spec.name}/{trained.run_id}/report.html"
    try:
        report = make_report(spec, prepared, trained.model, trained.result, subtitle, more)
        return _store(spec, key, replace(report, curves=trained.curves), run)
    except Exception as error:  # the run has published its model, whatever comes of its report
        known = failures.explain(error)
        _log.warning("run %s has no report: %s", trained.run_id, known or error, exc_info=known is None)
        return None


def report_on_model(spec: Spec, prepared: Prepared, model: ModelVersion, found: Mapping[str, Any]) -> str:
    """Stores the report of a model's evaluation; returns its location. Raises StorageError if it cannot be stored."""
    subtitle = f"Version {model.version} on the test split of {spec.data.source}"
    key = f"evaluations/{model.name}/{model.version}-{prepared.fingerprint}/report.html"
    return _store(spec, key, make_report(spec, prepared, model, found, subtitle, {}))


def _store(spec: Spec, key: str, report: Report, run: Run | None = None) -> str:
    from heliostat.infra.storage.store import open_store
    from heliostat.train.evaluation.report.page import render

    store, page = open_store(spec.storage), render(report).encode("utf-8", "replace")
    store.write_bytes(key, page)
    if run:
        run.text(page.decode(), "report.html")
    return f"{store.url.rstrip('/')}/{key}"


def make_report(
    spec: Spec,
    prepared: Prepared,
    model: ModelVersion,
    found: Mapping[str, Any],
    subtitle: str,
    more: Mapping[str, str],
) -> Report:
    """A report on a published model, without curves; `found` is the result of `evaluate.findings`."""
    from heliostat.train import tasks
    from heliostat.train.evaluation.report.page import Report

    facts = {
        "task": spec.task,
        **more,
        "data": spec.data.source,
        "data fingerprint": prepared.fingerprint,
        "records": ", ".join(f"{prepared.counts[split]:,} {split}" for split in ("train", "validation", "test")),
        "unknown tokens": f"{prepared.unknown_share:.2%}",
        "version": ", ".join([model.number, *model.aliases]),
        "published": f"{model.created:%Y-%m-%d %H:%M} UTC",
        "files": model.url,
        "manifest SHA-256": model.digest,
        "heliostat": __version__,
    }
    return Report(
        name=model.name,
        subtitle=subtitle,
        facts=facts,
        metric=tasks.get(spec.task).metric,
        spec=dump_yaml(spec),
        **{key: found[key] for key in ("metrics", "labels", "confusion", "reliability", "worst")},
    )
