"""Writes the results of a search as a CSV file and as child runs in MLflow."""

from __future__ import annotations

import csv
import io

from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.infra.tracked_run import Run, start_run
from heliostat.tune.search import Search, Trial


def write_csv(search: Search, storage: StorageConfig, key: str) -> str:
    """Stores the trials, best first, as CSV under `key`; returns the text."""
    text = io.StringIO()
    values, metrics = (
        sorted({key for trial in search.trials for key in getattr(trial, name)}) for name in ("values", "metrics")
    )
    writer = csv.writer(text)
    writer.writerow(["trial", *values, *metrics, "progress_percent", "seconds", "outcome", "error"])
    for trial in search.trials:
        tried = [trial.values.get(key, "") for key in values]
        measured = [trial.metrics.get(key, "") for key in metrics]
        writer.writerow(
            [
                trial.id,
                *tried,
                *measured,
                trial.progress,
                round(trial.seconds, 2),
                trial.outcome,
                trial.error or "",
            ]
        )
    open_store(storage).write_bytes(key, text.getvalue().encode())
    return text.getvalue()


def log_trial(storage: StorageConfig, experiment: str, trial: Trial, parent: Run) -> None:
    """Logs a trial's values, metrics and outcome as a child run of the search."""
    tags = {"heliostat.kind": "trial", "heliostat.outcome": trial.outcome}
    with start_run(storage, experiment, f"trial-{trial.id}", trial.values, tags, parent) as run:
        run.log(trial.metrics, trial.progress)
