"""What is kept and shown of a search: its state, its files in storage, its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.infra.config.strict import dump_yaml
from heliostat.searchable import full_key
from heliostat.spec import Spec
from heliostat.tune.space.values import Listed
from heliostat.tune.state import PageState, SearchState

if TYPE_CHECKING:
    from heliostat.infra.tracked_run import Run
    from heliostat.tune.driver import Driver
    from heliostat.tune.search import Plan


def running_state(spec: Spec, plan: Plan, driver: Driver) -> SearchState:
    """How a search stands that a driver runs, or has ended."""
    spent, trials, decisions = driver.spent(), driver.trials(), driver.decisions
    return SearchState(
        name=plan.id,
        objectives=plan.objectives,
        rule=plan.config.choose,
        trials=trials,
        running={driver.decisions.works[number].trial for number in driver.running},
        elapsed_seconds=spent["seconds"],
        worker_hours=spent["worker_seconds"] / 3600,
        idle_worker_hours=spent["idle_worker_seconds"] / 3600,
        lag=spec.tune.decision_lag,
        cost=spent.get("usd"),
        gang_hour_price=plan.gang_hour_usd,
        wanted=decisions.wanted,
        left=decisions.left(trials),
        note=driver.ended or decisions.note,
        keys=tuple(spec.tune.space),
        repeated_steps=driver.decisions.steps_again(),
    )


def page_of(spec: Spec, plan: Plan, state: SearchState, *, is_over: bool = False) -> PageState:
    """What the page and the report of a search show."""
    space = spec.tune.space
    epochs = [key for key in space if full_key(key) == "train.epochs"]
    return PageState(
        state,
        subtitle=f"{plan.what}, {spec.task}",
        facts={"search": plan.id, "model": spec.name, "searcher": spec.tune.search, "scheduler": spec.tune.scheduler},
        logarithmic=[key for key, domain in space.items() if domain.loguniform],
        categorical=[key for key, domain in space.items() if isinstance(domain.values, Listed)],
        trial_epochs=None if epochs else spec.tune.epochs or spec.train.epochs,
        train_epochs=None if epochs else spec.train.epochs,
        spec=dump_yaml(spec),
        is_over=is_over,
    )


def write_files(spec: Spec, plan: Plan, state: SearchState, tracked: Run) -> str:
    """Stores trials and report beside the search's journal, and in MLflow; returns the report's place."""
    from heliostat.infra.storage.store import open_store
    from heliostat.tune.reports.files import to_csv, to_json
    from heliostat.tune.reports.search_report import render

    store = open_store(spec.storage)
    page = render(page_of(spec, plan, state, is_over=True))
    files = {"trials.csv": to_csv(state), "trials.json": to_json(state), "report.html": page}
    for name, text in files.items():
        store.write_bytes(f"{plan.prefix}/{name}", text.encode())
        tracked.text(text, name)
    return f"{store.url}/{plan.prefix}/report.html"
