"""Searches values for keys of the spec."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from heliostat.infra.config.strict import dump_yaml
from heliostat.infra.errors import NotFoundError, ResourceError
from heliostat.pipeline import prepare
from heliostat.pipeline.job import make_job
from heliostat.pipeline.search_files import last_state, page_of, running_state, write_files
from heliostat.pipeline.searches import new_search, read_search, write_search
from heliostat.pipeline.trial_spec import check_space, trial_spec, with_values
from heliostat.searchable import full_key
from heliostat.spec import Spec
from heliostat.tune.state import SearchState
from heliostat.view.search import searching, show_search
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.tune.driver import Driver
    from heliostat.tune.search import Plan, Search


def run(
    spec: Spec, prepared: Prepared, view: View, name: str | None = None, *, with_page: bool = False
) -> tuple[Spec, Search]:
    """The spec with the values of the best trial, and the search: a new one, or `name`, which goes on where it ended.

    `with_page` serves a page of it meanwhile, on the loopback. Logged to MLflow as a run with a child per trial. Raises
    ConfigError for a space that training cannot use, and TrainingError if no trial has a usable result.
    """
    from heliostat.infra.storage.store import open_store
    from heliostat.tune import search

    check_space(spec)
    plan = make_plan(spec, prepared, name or new_search())
    with _following(spec, plan, view, with_page) as changed:
        found = search.search(plan, open_store(spec.storage), changed)
    show_search(view, last_state(spec, plan, found))
    return with_values(spec, found.best.values), found


def make_plan(spec: Spec, prepared: Prepared, name: str) -> Plan:
    """What the search is made of; starts nothing."""
    from heliostat.train import tasks
    from heliostat.train.launch import resolve_use_gpu
    from heliostat.tune.budget import budget_of
    from heliostat.tune.gang import Crew
    from heliostat.tune.schedulers.base import Settings
    from heliostat.tune.schedulers.catalog import build_scheduler
    from heliostat.tune.search import Plan
    from heliostat.tune.searchers import build_searcher
    from heliostat.tune.space.space import Space
    from heliostat.tune.trials import Objective

    task, config = tasks.get(spec.task), spec.tune
    objective = Objective(task.metric, task.mode)
    return Plan(
        name=spec.name,
        id=name,
        config=config,
        objective=objective,
        scheduler=build_scheduler(config.scheduler, Settings((objective,), config.grace, seed=config.seed)),
        searcher=build_searcher(config.search, Space(config.space), (objective,), config.seed, config.points),
        make_job=Jobs(spec, prepared, name),
        crew=Crew.of(spec.train, resolve_use_gpu(spec.train)),
        contract=contract(spec, prepared),
        space={key: domain.model_dump(exclude_none=True) for key, domain in config.space.items()},
        budget=budget_of(config.budget),
    )


class Jobs:
    """Makes the jobs of trials; data that a value changes are prepared once for it."""

    def __init__(self, spec: Spec, prepared: Prepared, name: str) -> None:
        self._spec, self._name = spec, name
        self._prepared = {_of_data(spec): prepared}

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The job of a trial with these values; raises HeliostatError if they cannot work."""
        spec = trial_spec(self._spec, values)
        key = _of_data(spec)
        if key not in self._prepared:
            self._prepared[key] = prepare.prepared_quietly(spec)
        return make_job(spec, self._prepared[key], self._name).model_dump(mode="json")


def _of_data(spec: Spec) -> str:
    """What prepared data follow from."""
    return json.dumps([spec.task, spec.data.model_dump(mode="json"), spec.model.model_dump(mode="json")])


OPERATIONAL = ("workers", "use_gpu", "cpus_per_worker", "resume", "promote", "max_failures", "keep_checkpoints")
"""Keys of `train` that do not change what is learned."""


def contract(spec: Spec, prepared: Prepared) -> dict[str, Any]:
    """Settings that must not change between the driver that began a search and one that goes on with it."""
    searched = {full_key(key) for key in spec.tune.space}
    train = spec.train.model_dump(mode="json", exclude={*OPERATIONAL, "checkpoint_every", "validate_every"})
    model = spec.model.model_dump(mode="json", exclude_none=True)
    settings = {
        "task": spec.task,
        "data": prepared.fingerprint,
        **{f"model.{key}": value for key, value in model.items()},
        **{f"train.{key}": value for key, value in train.items()},
        "tune.epochs": spec.tune.epochs,
        "tune.grace": spec.tune.grace,
    }
    return {key: value for key, value in settings.items() if not any(one.startswith(key) for one in searched)}


@contextmanager
def _following(spec: Spec, plan: Plan, view: View, with_page: bool) -> Iterator[Callable[[Driver], None]]:
    """Shows, exports and logs how the search stands, whenever its driver says that it has changed."""
    from heliostat.infra.metrics.export import Exporter
    from heliostat.infra.tracked_run import start_run
    from heliostat.tune.reports.tracking import logging_trials
    from heliostat.tune.telemetry import SearchMetrics

    record = read_search(spec, plan.id)
    tags = {"heliostat.kind": "search"}
    with (
        start_run(spec.storage, spec.name, plan.id, plan.space, tags, run_id=record.get("mlflow")) as tracked,
        closing(Exporter()) as exporter,
    ):
        about = {"mlflow": tracked.id, "spec": dump_yaml(spec)}
        write_search(spec, plan.id, {**about, "status": "running"})
        metrics = SearchMetrics(exporter, {"model": spec.name, "search": plan.id}, plan.config.most_gangs)
        before = _before(spec, plan)
        newest = Newest(
            before or SearchState(plan.id, (plan.objective,), wanted=spec.tune.trials, keys=tuple(spec.tune.space))
        )
        try:
            with (
                _page(spec, plan, newest, view, with_page),
                searching(view.console, before) as show,
                logging_trials(spec.storage, spec.name, tracked, is_resumed=bool(record)) as log,
            ):
                following = (newest.take, show, metrics.update, log)

                def changed(driver: Driver) -> None:
                    state = running_state(spec, plan, driver)
                    for follow in following:
                        follow(state)

                yield changed
        except ResourceError:  # the search is another process's, which writes these
            raise
        except BaseException:
            write_files(spec, plan, newest.state, tracked)
            raise
        place = write_files(spec, plan, newest.state, tracked)
        write_search(spec, plan.id, {**about, "status": "stopped" if newest.state.note else "finished"})
    view.say(f"Report of the search: {place}")


def _before(spec: Spec, plan: Plan) -> SearchState | None:
    """How the search stood when it was interrupted; None for a new one."""
    from heliostat.infra.storage.store import open_store
    from heliostat.tune.history import look

    try:
        return look(open_store(spec.storage), plan.prefix, plan.id)
    except NotFoundError:
        return None


class Newest:
    """The newest state of a search."""

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
