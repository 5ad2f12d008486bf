"""Searches values for keys of the spec."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import ResourceError, TrainingError
from heliostat.pipeline.search_files import page_of, running_state, write_files
from heliostat.pipeline.search_precision import settle_precision
from heliostat.pipeline.searches import new_search, read_search, write_search
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.trial_spec import check_space, with_values
from heliostat.searchable import full_key
from heliostat.spec import Spec
from heliostat.tune.state import SearchState
from heliostat.view.search import searching, show_search
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.tune.driver import Driver
    from heliostat.tune.search import Plan, Search
    from heliostat.tune.settings import MakeJob

TELL_SECONDS = 0.5
"""Between looks at a search that runs."""


def run(
    spec: Spec,
    prepared: Prepared,
    view: View,
    name: str | None = None,
    *,
    with_page: bool = False,
    retry: bool = False,
) -> tuple[Spec, Search]:
    """The spec with the values of the best trial, and the search: a new one, or `name`, which goes on where it ended.

    `retry` tries its failed trials again, and begins no new ones. `with_page` serves a page of it meanwhile, on the
    loopback. Logged to MLflow as a run with a child per trial. Raises
    ConfigError for a space that training cannot use, ResourceError if another process runs the search, and
    TrainingError if no trial has a usable result.
    """
    from heliostat.infra.storage.store import open_store
    from heliostat.tune import search
    from heliostat.tune.lineage import schedule

    check_space(spec)
    name = name or new_search()
    spec = settle_precision(spec, name, view)
    jobs = TrialJobs(spec, name, prepared)
    jobs.prepare(view)
    plan = make_plan(spec, prepared, jobs, name)
    with search.driving(plan, open_store(spec.storage), retry) as driver:  # only its owner writes what follows
        with _following(spec, plan, driver, view, with_page):
            found = search.run(plan, driver)
        show_search(view, running_state(spec, plan, driver))
    check_has_scores(plan.what, driver)
    best = found.best
    return with_values(spec, best.values, schedule(found.trials, best.number)), found


def check_has_scores(what: str, driver: Driver) -> None:
    """Raises TrainingError for a search that ended before any trial was validated; one that failed says so itself."""
    if driver.ended and not any(trial.scores or trial.error for trial in driver.trials()):
        raise TrainingError(f"{what}: {driver.ended} before a trial was validated; --resume with more goes on with it")


def make_plan(spec: Spec, prepared: Prepared, make_job: MakeJob, name: str) -> Plan:
    """What the search is made of; starts nothing. Raises ConfigError for the price of what workers do not run on."""
    from heliostat.train.launch import resolve_use_gpu
    from heliostat.tune.budget import budget_of
    from heliostat.tune.gang import Crew
    from heliostat.tune.objectives import objectives_of
    from heliostat.tune.price import Price
    from heliostat.tune.reruns import Reruns
    from heliostat.tune.schedulers.base import Settings
    from heliostat.tune.schedulers.catalog import build_scheduler
    from heliostat.tune.schedulers.explore import axes_of, perturb_in
    from heliostat.tune.search import Plan
    from heliostat.tune.searchers import build_searcher
    from heliostat.tune.space.space import Space

    config = spec.tune
    objectives, space = objectives_of(config.objectives, spec.task), Space(config.space)
    compared = ", ".join(f"{one.metric} {one.mode}" for one in objectives)
    crew = Crew.of(spec.train, resolve_use_gpu(spec.train), config.gpus_per_trial, objectives)
    settings = Settings(
        objectives,
        config.grace,
        config.reduction_factor,
        seed=config.seed,
        perturb=perturb_in(space, config.space),
        axes=axes_of(space, config.space),
    )
    return Plan(
        name=spec.name,
        id=name,
        config=config,
        objectives=objectives,
        scheduler=build_scheduler(config.scheduler, settings),
        searcher=build_searcher(config.search, space, objectives, config.seed, config.points),
        make_job=make_job,
        crew=crew,
        contract={**contract(spec, prepared), "tune.objectives": compared},
        space={key: domain.model_dump(exclude_none=True) for key, domain in config.space.items()},
        budget=budget_of(config.budget),
        reruns=Reruns(config, objectives, spec.train.seed),
        worker_hour_usd=Price.read(config.price).of_worker(crew) if config.price else None,
    )


OPERATIONAL = ("workers", "use_gpu", "cpus_per_worker", "resume", "promote", "max_failures", "keep_checkpoints")
"""Keys of `train` that do not change what is learned."""


def contract(spec: Spec, prepared: Prepared) -> dict[str, Any]:
    """Settings that must not change between the driver that began a search and one that goes on with it."""
    searched = {full_key(key) for key in spec.tune.space}
    train = spec.train.model_dump(mode="json", exclude={*OPERATIONAL, "checkpoint_every", "validate_every"})
    model = spec.model.model_dump(mode="json", exclude_none=True)
    settings = {
        **{f"model.{key}": value for key, value in model.items()},
        **{f"train.{key}": value for key, value in train.items()},
    }
    tune = {"tune.epochs": spec.tune.epochs, "tune.grace": spec.tune.grace, "tune.repeats": spec.tune.repeats}
    fixed = {"task": spec.task, "data": prepared.fingerprint, **tune}
    return fixed | {key: value for key, value in settings.items() if not any(_is_below(one, key) for one in searched)}


def _is_below(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


@contextmanager
def _following(spec: Spec, plan: Plan, driver: Driver, view: View, with_page: bool) -> Iterator[None]:
    """Shows, exports and logs how the search stands while its driver runs; in the end its files are stored."""
    from heliostat.infra.metrics.export import Exporter
    from heliostat.infra.tracked_run import start_run
    from heliostat.tune.budget import BudgetWatch
    from heliostat.tune.reports.tracking import logging_trials
    from heliostat.tune.telemetry import SearchMetrics

    record, newest = read_search(spec, plan.id), Newest(running_state(spec, plan, driver))
    tags = {"heliostat.kind": "search"}
    with (
        start_run(spec.storage, spec.name, plan.id, plan.space, tags, run_id=record.get("mlflow")) as tracked,
        closing(Exporter()) as exporter,
    ):
        about = {"mlflow": tracked.id, "spec": dump_yaml(spec)}
        write_search(spec, plan.id, {**about, "status": "running"})
        watch = BudgetWatch(spec.tune.budget, plan.crew.workers)
        metrics = SearchMetrics(exporter, {"model": spec.name, "search": plan.id}, plan.config.most_gangs)
        try:
            with (
                _page(spec, plan, newest, view, with_page),
                searching(view.console, newest.state) as show,
                logging_trials(spec.storage, spec.name, tracked, is_resumed=bool(record)) as log,
                _told(spec, plan, driver, (newest.take, show, metrics.update, watch.update, log)),
            ):
                yield
        except ResourceError:  # the search is another process's now, and so are its run in MLflow and its files
            tracked.is_left = True
            raise
        except BaseException:
            write_files(spec, plan, newest.state, tracked)
            raise
        place = write_files(spec, plan, newest.state, tracked)
        write_search(spec, plan.id, {**about, "status": "stopped" if driver.ended else "finished"})
    view.say(f"Report of the search: {place}")


@contextmanager
def _told(spec: Spec, plan: Plan, driver: Driver, followers: Sequence[Callable[[SearchState], None]]) -> Iterator[None]:
    """Tells the followers how the search stands: as often as costs little with a thousand trials, and at last."""
    last = 0.0

    def tell(driver: Driver) -> None:
        nonlocal last
        last = time.monotonic()
        state = running_state(spec, plan, driver)
        for follow in followers:
            follow(state)

    driver.on_change = lambda driver: tell(driver) if time.monotonic() - last >= TELL_SECONDS else None
    try:
        yield
    except ResourceError:
        raise
    except BaseException:
        tell(driver)
        raise
    tell(driver)


class Newest:
    """The newest state of a search, for threads that ask at any time."""

    def __init__(self, state: SearchState) -> None:
        self.state = state

    def take(self, state: SearchState) -> None:
        """Keeps it."""
        self.state = state


@contextmanager
def _page(spec: Spec, plan: Plan, newest: Newest, view: View, with_page: bool) -> Iterator[None]:
    """The page of the search, on the loopback, if it is wanted."""
    from heliostat.tune.reports.live import serve_page

    if not with_page:
        yield
        return
    with serve_page(lambda: page_of(spec, plan, newest.state)) as url:
        view.say(f"page of the search: {url}")
        yield
