"""Gangs without workers: trials are formulas, checkpoints stand in a set, faults come where a test wants them."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat.infra.storage.local import LocalStore
from heliostat.tune.config import TuneConfig
from heliostat.tune.driver import Driver
from heliostat.tune.gang import TrialStoppedError
from heliostat.tune.journal import Journal
from heliostat.tune.reruns import Reruns
from heliostat.tune.schedulers.base import Settings as SchedulerSettings
from heliostat.tune.schedulers.catalog import build_scheduler
from heliostat.tune.search import Plan, begun
from heliostat.tune.searchers import build_searcher
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space
from heliostat.tune.trials import Objective
from heliostat.tune.work import Place

STEPS = 8
SEED = 7
"""Of `train`."""
LOSS = Objective("loss", "min")
SPACE = {"learning_rate": Domain(uniform=(0.0, 1.0))}


def loss_of(values: Mapping[str, Any], step: int) -> float:
    """Falls with the steps, faster near a rate of 0.3."""
    return 1 / (1 + step) + abs(float(values["learning_rate"]) - 0.3)


@dataclass(eq=False)
class Workshop:
    """Where fake gangs come from, and what they share."""

    room: int = 1
    """Gangs at the same time."""
    on_step: Callable[[FakeGang], None] = lambda _: None
    """Called before each step; raises what shall go wrong."""
    loss: Callable[[Mapping[str, Any], int], float] = loss_of
    more: Callable[[Mapping[str, Any], int], Mapping[str, float]] = lambda *_: {}
    """Metrics beside the loss."""
    delays: random.Random | None = None
    workers: int = 1
    stored: set[tuple[str, int]] = field(default_factory=set)
    """Trial's folder and step of each checkpoint."""
    hired: list[FakeGang] = field(default_factory=list)
    trained: list[tuple[float, int]] = field(default_factory=list)
    """Learning rate and number of each step that was trained."""

    def has_room(self) -> bool:
        return sum(not gang.is_closed for gang in self.hired) < self.room

    def hire(self) -> FakeGang:
        self.hired.append(FakeGang(self))
        return self.hired[-1]


@dataclass(eq=False)
class FakeGang:
    workshop: Workshop
    holds: tuple[int, float] | None = None
    is_up: bool = False
    is_ready: bool = False
    is_closed: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    step: int = 0
    place: Place | None = None
    every: int = 1
    is_stopping: bool = False

    async def start(self) -> None:
        self.is_up = self.is_ready = True

    async def begin(self, job: dict[str, Any], share: float, place: Place, limit: int | None) -> int:
        self.values, self.place, self.limit, self.every = job, place, limit, math.ceil(share * STEPS)
        bound = place.step + (self.every if place.is_own else 1)
        known = {step for source, step in self.workshop.stored if source == place.source and step < bound}
        self.step = max(known, default=0)
        return self.step

    async def advance(self) -> dict[str, Any]:
        while True:
            await asyncio.sleep(self.workshop.delays.random() / 100 if self.workshop.delays else 0)
            self.workshop.on_step(self)
            self.step += 1
            self.workshop.trained.append((self.values["learning_rate"], self.step))
            if self.is_stopping:
                self.store()
                raise TrialStoppedError
            if self.step % self.every == 0 or self.step == STEPS:
                self.store()
                value = self.workshop.loss(self.values, self.step)
                metrics = {"loss": value, **self.workshop.more(self.values, self.step)}
                return {"step": self.step, "steps": STEPS, "metrics": metrics, "seconds": 1.0, "micro_batch": 8}

    def store(self) -> None:
        assert self.place
        if self.step < STEPS:
            self.workshop.stored.add((self.place.prefix.rpartition("/")[0], self.step))

    def stop(self) -> None:
        self.is_stopping = True

    async def settle(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def plan(config: TuneConfig, workshop: Any, objectives: tuple[Objective, ...] = (LOSS,), **changes: Any) -> Plan:
    """A search of these settings."""
    parts: dict[str, Any] = {
        "name": "m",
        "id": "s",
        "config": config,
        "objectives": objectives,
        "scheduler": build_scheduler(config.scheduler, SchedulerSettings(objectives, config.grace, seed=config.seed)),
        "searcher": build_searcher(config.search, Space(config.space), objectives, config.seed, config.points),
        "make_job": lambda values, past: dict(values),
        "crew": workshop,
        "contract": {},
        "space": {},
        "budget": lambda _: None,
        "reruns": Reruns(config, objectives, SEED),
    }
    return Plan(**{**parts, **changes})


def cuts(whole: Path, folder: Path, search: str = "runs/m/s") -> Iterator[Path]:
    """Storage for each write of the journal of a search in `whole`: what was there before that write, in `folder`."""
    groups = sorted((whole / search / "journal").iterdir())
    for kept in range(len(groups)):
        cut = folder / f"cut-{kept}"
        (cut / search / "journal").mkdir(parents=True)
        for group in groups[:kept]:
            shutil.copy(group, cut / search / "journal" / group.name)
        yield cut


def config(**changes: Any) -> TuneConfig:
    """Settings of a small search by random values."""
    return TuneConfig.model_validate({"space": SPACE, "trials": 8, "search": "random", "lag": 2, **changes})


def driver_of(
    made: Plan, store: LocalStore, on_change: Callable[[Driver], None] = lambda _: None, retry: bool = False
) -> Driver:
    """A driver that begins the search, or goes on with what is in `store`."""
    driver = begun(made, Journal(store, made.prefix, made.what), retry)
    driver.on_change = on_change
    return driver


def run(made: Plan, store: LocalStore, retry: bool = False) -> Driver:
    """The driver, after the search has ended."""
    driver = driver_of(made, store, retry=retry)
    asyncio.run(driver.run())
    return driver
