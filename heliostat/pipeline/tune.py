"""Searches values for keys of `train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.pipeline.job import make_job
from heliostat.pipeline.runs import new_run_id
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.tune.search import Search


def run(spec: Spec, prepared: Prepared, view: View) -> tuple[Spec, Search]:
    """The spec with the values of the best trial, and the search; logged to MLflow as a run with a child per trial."""
    from heliostat.infra.tracked_run import start_run
    from heliostat.tune.report import log_trial, write_csv
    from heliostat.tune.search import search

    if not spec.data.split.validation:
        raise ConfigError(
            "data.split.validation: 0 given; a search compares its trials by that split, so it needs more"
        )
    run_id = f"search-{new_run_id()}"
    job = make_job(spec, prepared, run_id)
    with (
        start_run(
            spec.storage, spec.name, run_id, spec.tune.model_dump(mode="json"), {"heliostat.kind": "search"}
        ) as run,
        view.trials(spec.tune.trials) as on_trial,
    ):
        found = search(job, spec.tune, on_trial)
        for trial in found.trials:
            log_trial(spec.storage, spec.name, trial, parent=run)
        run.text(write_csv(found, spec.storage, f"runs/{spec.name}/{run_id}/trials.csv"), "trials.csv")
    view.searched(found)
    train = {**spec.train.model_dump(), **found.best.values}
    return spec.model_copy(update={"train": build(type(spec.train), train)}), found
