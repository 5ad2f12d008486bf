"""A run's page: its numbers from MLflow and the workers, stored where the run's files are, and with it in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat import __version__
from heliostat.infra import log
from heliostat.infra.config import dump_yaml
from heliostat.infra.errors import StorageError
from heliostat.spec import Spec

if TYPE_CHECKING:
    from heliostat.infra.tracking import Run
    from heliostat.pipeline import Trained
    from heliostat.train.data import Prepared
    from heliostat.train.report.page import Report

_log = log.get(__name__)

Curves = dict[str, dict[int, float]]
"""Values by step, under the names that they have in MLflow."""


def measured(event: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an event of a run, under the names that they have in MLflow."""
    if event["kind"] == "step":
        return {f"train/{name}": event[name] for name in ("loss", "learning_rate", "grad_norm", "seconds")}
    split = {"report": "validation", "result": "test"}.get(event["kind"])
    return {f"{split}/{name}": value for name, value in event["metrics"].items()} if split else {}


def whole(run: Run, seen: Curves, metric: str) -> Curves:
    """The curves of a run that was gone on with: those that MLflow has of before, then `seen` by this process."""
    train = [f"train/{name}" for name in ("loss", "learning_rate", "grad_norm")]
    try:
        before = run.history([*train, "validation/loss", f"validation/{metric}"])
    except StorageError as error:
        _log.warning("curves begin where this command does: %s", error)
        before = {}
    return {name: before.get(name, {}) | seen.get(name, {}) for name in {*before, *seen}}


def write_report(spec: Spec, prepared: Prepared, run: Run, trained: Trained) -> str | None:
    """Stores the report of a run that has published its model and keeps it in MLflow; returns where it is stored.

    None where that fails, whatever the reason: it is logged, and the run is none the worse for it.
    """
    try:
        return _write(spec, prepared, run, trained)
    except Exception:
        _log.warning("run %s has no report", trained.run_id, exc_info=True)
        return None


def _write(spec: Spec, prepared: Prepared, run: Run, trained: Trained) -> str:
    from heliostat.infra.storage import open_store
    from heliostat.train.report.page import render

    page = render(report_of(spec, prepared, trained)).encode("utf-8", "replace")
    store, key = open_store(spec.storage), f"runs/{spec.name}/{trained.run_id}/report.html"
    store.write_bytes(key, page)
    with tempfile.TemporaryDirectory(prefix="heliostat-report-") as folder:
        file = Path(folder) / "report.html"
        file.write_bytes(page)
        try:
            run.artifact(file)
        except StorageError as error:
            _log.warning("the report of run %s is in storage only: %s", trained.run_id, error)
    return f"{store.url.rstrip('/')}/{key}"


def report_of(spec: Spec, prepared: Prepared, trained: Trained) -> Report:
    """What the report of a run says."""
    from heliostat.train import tasks
    from heliostat.train.report.page import Report

    model, result = trained.model, trained.result
    counts = ", ".join(f"{prepared.counts[split]:,} {split}" for split in ("train", "validation", "test"))
    return Report(
        name=spec.name,
        subtitle=f"Version {model.version}, published by run {trained.run_id}",
        facts={
            "task": spec.task,
            "base model": spec.model.source,
            "data": spec.data.source,
            "data fingerprint": prepared.fingerprint,
            "records": counts,
            "version": ", ".join([str(model.version), *model.aliases]),
            "published": f"{model.created:%Y-%m-%d %H:%M} UTC",
            "files": f"{model.url} ({result['size_bytes'] / 1e6:.1f} MB)",
            "manifest SHA-256": model.digest,
            "run in MLflow": trained.tracking_url,
            "heliostat": __version__,
        },
        metrics=result["metrics"],
        metric=tasks.get(spec.task).metric,
        spec=dump_yaml(spec),
        labels=result["labels"],
        curves=trained.curves,
        confusion=result["confusion"],
        reliability=result["reliability"],
        worst=result["worst"],
    )
