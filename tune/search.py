"""A search over keys of a spec: a scheduler and a searcher decide, gangs train, a journal keeps all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from signal import Signals
from typing import Any

from heliostat.cluster.session.interrupts import first_signal
from heliostat.infra import log
from heliostat.infra.errors import ConfigError, StoppedError, TrainingError
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.lease import leased
from heliostat.tune.budget import Budget
from heliostat.tune.choice import Rule, choose, unmet
from heliostat.tune.config import TuneConfig
from heliostat.tune.decisions import Decisions, Scheduler, Searcher
from heliostat.tune.driver import Driver
from heliostat.tune.gang import Crew
from heliostat.tune.history import History
from heliostat.tune.journal import Journal
from heliostat.tune.patience import Patience
from heliostat.tune.reruns import NONE, Reruns
from heliostat.tune.settings import MakeJob, Settings
from heliostat.tune.trials import Objective, Trial

_log = log.get(__name__)


@dataclass(frozen=True)
class Plan:
    """What a search is made of."""

    name: str
    """Of the model."""
    id: str
    """Of the search."""
    config: TuneConfig
    objectives: tuple[Objective, ...]
    scheduler: Scheduler
    searcher: Searcher
    make_job: MakeJob
    crew: Crew
    contract: Mapping[str, Any]
    """Settings that a resumed search must share with this one: key -> value."""
    space: Mapping[str, Any]
    """The searched keys and their domains, for the record."""
    budget: Budget
    reruns: Reruns = NONE
    worker_hour_usd: float | None = None
    """What an hour of a worker costs; None if it is not known."""

    @property
    def prefix(self) -> str:
        """Of the search in storage."""
        return f"runs/{self.name}/{self.id}"

    @property
    def gang_hour_usd(self) -> float | None:
        """What an hour of a gang costs; None if it is not known."""
        return None if self.worker_hour_usd is None else self.worker_hour_usd * self.crew.workers

    @property
    def what(self) -> str:
        """The search in messages."""
        return f"search {self.id} of {self.name}"


@dataclass(frozen=True)
class Search:
    """A search that has ended: its trials in the order of their numbers."""

    trials: Sequence[Trial]
    objectives: tuple[Objective, ...]
    rule: Rule = "first"
    id: str = ""

    @property
    def winner(self) -> str:
        """The best trial as `SEARCH/TRIAL`."""
        return f"{self.id}/{self.best.number}"

    @property
    def best(self) -> Trial:
        """The trial that the rule takes; raises TrainingError if none has a usable result or keeps the bounds."""
        if found := choose(self.trials, self.objectives, self.rule):
            return found
        if reason := unmet(self.trials, self.objectives, self.rule):
            raise TrainingError(reason)
        failed = [trial.error for trial in self.trials if trial.error]
        if failed and len(failed) == len(self.trials):
            raise TrainingError(f"all {len(failed)} trials failed; the first: {failed[0]}")
        why = f"; {len(failed)} failed, the first: {failed[0]}" if failed else ""
        names = ", ".join(one.metric for one in self.objectives)
        raise TrainingError(f"none of {len(self.trials)} trials has a finite {names}{why}")


def search(plan: Plan, store: Store, on_change: Callable[[Driver], None]) -> Search:
    """Runs the search, or goes on with it if its journal is there; see `driving` and `run`."""
    with driving(plan, store) as driver:
        driver.on_change = on_change
        return run(plan, driver)


@contextmanager
def driving(plan: Plan, store: Store, retry: bool = False) -> Iterator[Driver]:
    """The driver of the search, with all that its journal knows; nobody else drives it during the block.

    With `retry`, its failed trials are tried again, and no new ones are begun.

    Raises ResourceError if another process runs the search, ConfigError if it was begun with another objective, model
    or data.
    """
    journal = Journal(store, plan.prefix, plan.what)
    with leased(store, f"{plan.prefix}/driver", plan.what, journal.lose), closing(journal):
        yield begun(plan, journal, retry)


def run(plan: Plan, driver: Driver) -> Search:
    """Runs the search on the Ray cluster that this process has joined.

    Raises StoppedError if a signal ended it, whose running trials are stored first, ResourceError if another process
    has taken it over, and TrainingError if trial after trial fails.
    """
    received: list[Signals] = []

    def signalled(number: Signals) -> None:
        received.append(number)
        _log.warning("%s: running trials are stored; a second signal does not wait for that", number.name)
        driver.stop(f"stopped by {number.name}")

    with first_signal(signalled):
        asyncio.run(driver.run())
    if received:
        raise StoppedError(f"{plan.what} stopped; --resume goes on with it", received[0])
    return Search(driver.trials(), plan.objectives, plan.config.choose, plan.id)


def begun(plan: Plan, journal: Journal, retry: bool = False) -> Driver:
    """The driver of the search, with all that its journal knows; see `driving`."""
    config = plan.config
    patience = Patience(plan.objectives, config.patience, config.min_delta) if config.patience else None
    decisions = Decisions(plan.scheduler, plan.searcher, config.trials, config.decision_lag, plan.reruns, patience)
    history = History(decisions).take(journal.read())
    if history.begun:
        _check_contract(plan, history.begun[0]["contract"])
    again = decisions.retry() if retry else []
    driver = Driver(decisions, journal, plan.make_job, plan.crew, _settings(plan, len(history.begun) + 1))
    driver.resume(history.scores, history.spent, history.handled)
    about = {"contract": plan.contract, "space": plan.space, "choose": config.choose}
    goals = {"objectives": [asdict(one) for one in plan.objectives]}
    how = {"trials": config.runs, "lag": config.decision_lag, "gang_hour_usd": plan.gang_hour_usd}
    journal.add("driver", {**about, **goals, **how})
    for work in again:
        journal.add("work", work)
    return driver


def _settings(plan: Plan, owner: int) -> Settings:
    config = plan.config
    return Settings(
        prefix=plan.prefix,
        owner=owner,
        grace=config.grace,
        max_failures=config.max_failures,
        most_gangs=config.most_gangs,
        objectives=plan.objectives,
        budget=plan.budget,
        checkpoint_bytes=config.checkpoint_bytes,
        worker_hour_usd=plan.worker_hour_usd,
    )


def _check_contract(plan: Plan, before: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting with which trials would no longer compare."""
    for key, value in before.items():
        if plan.contract.get(key) != value:
            raise ConfigError(
                f"{key}: {plan.contract.get(key)!r} given, but {plan.what} was begun with {value!r}; "
                "resume it with that, or start a new one"
            )
