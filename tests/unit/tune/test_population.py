"""Population based training loses nothing: weights are what its schedules say, whatever happens on the way."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.storage.local import LocalStore
from heliostat.tune.config import TuneConfig
from heliostat.tune.driver import Driver
from heliostat.tune.gang import GangLostError
from heliostat.tune.lineage import schedule
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.catalog import build_scheduler
from heliostat.tune.schedulers.explore import axes_of, perturb_in
from heliostat.tune.search import Plan
from heliostat.tune.space.space import Space
from heliostat.tune.trials import Trial
from tests.unit.tune.gangs import LOSS, FakeGang, Workshop, config, cuts, plan, run

STEPS = 10
EVERY = 3
"""A quarter, in whole steps."""
Weights = tuple[float, ...]
"""The learning rate of each step that led to them."""


def rates(past: Sequence[tuple[float, Mapping[str, Any]]], last: float) -> Weights:
    """Those of each step of a whole run, the last part having the rate `last`."""
    parts = [*((until, values["learning_rate"]) for until, values in past), (1.0, last)]
    return tuple(next(rate for until, rate in parts if step < round(until * STEPS)) for step in range(STEPS))


@dataclass(eq=False)
class Population(Workshop):
    """Gangs whose weights are all that they were trained with; checkpoints hold them."""

    weights: dict[tuple[str, int], list[Weights]] = field(default_factory=dict)
    """By trial's folder and step."""
    lost: Collection[int] = ()
    """Steps whose checkpoints are lost."""

    def hire(self) -> FakeGang:
        self.hired.append(Trainer(self))
        return self.hired[-1]


@dataclass(eq=False)
class Trainer(FakeGang):
    """Begins with a checkpoint that its job's past led to, as `TrialCheckpoints` does."""

    trained: Weights = ()

    async def begin(self, job: dict[str, Any], share: float, place: Any, limit: int | None) -> int:
        self.values, self.place = job, place
        wanted = rates(job["past"], job["learning_rate"])
        assert isinstance(self.workshop, Population)
        known = [
            one
            for (source, step), found in self.workshop.weights.items()
            for one in found
            if source == place.source and step < place.step + (EVERY if place.is_own else 1) and one == wanted[:step]
        ]
        self.trained = max(known, key=len, default=())
        return len(self.trained)

    async def advance(self) -> dict[str, Any]:
        while True:
            await asyncio.sleep(self.workshop.delays.random() / 1000 if self.workshop.delays else 0)
            self.workshop.on_step(self)
            self.trained = (*self.trained, rates(self.values["past"], self.values["learning_rate"])[len(self.trained)])
            self.step = len(self.trained)
            if self.step % EVERY == 0 or self.step == STEPS:
                self.store()
                loss = sum(abs(rate - 0.1 - 0.05 * k) for k, rate in enumerate(self.trained)) / self.step
                return {"step": self.step, "steps": STEPS, "metrics": {"loss": loss}, "seconds": 1.0}

    def store(self) -> None:
        assert isinstance(self.workshop, Population)
        assert self.place
        if self.step not in {STEPS, *self.workshop.lost}:
            key = (self.place.prefix.rpartition("/")[0], self.step)
            self.workshop.weights.setdefault(key, []).append(self.trained)


def population(workshop: Workshop, scheduler: str = "pbt", **changes: Any) -> Plan:
    """A search with this scheduler; `changes` are settings, or parts of the plan."""
    about = {key: changes.pop(key) for key in ("name", "id") if key in changes}
    made = config(scheduler=scheduler, **changes)
    space = Space(made.space)
    settings = Settings(
        (LOSS,), made.grace, seed=made.seed, perturb=perturb_in(space, made.space), axes=axes_of(space, made.space)
    )
    built = build_scheduler(scheduler, settings)
    return plan(made, workshop, scheduler=built, make_job=_job, **about)


def _job(values: Mapping[str, Any], past: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, Any]:
    return {**values, "past": past}


def told(trials: Sequence[Trial]) -> list[Any]:
    return [
        (one.values, one.past, one.error, [(score.share, score.step, score.metrics) for score in one.scores])
        for one in trials
    ]


def searched(made: Plan, folder: Path) -> Driver:
    return run(made, LocalStore(str(folder)))


def checked(driver: Driver) -> None:
    """Asserts that each trial's schedule gives its losses, and that something was taken over."""
    trials = driver.trials()
    assert all(trial.share == 1 and not trial.error for trial in trials)
    assert any(trial.origin for trial in trials)
    for trial in trials:
        past = schedule(trials, trial.number)
        found = rates(past, past[-1][1]["learning_rate"])
        loss = sum(abs(rate - 0.1 - 0.05 * k) for k, rate in enumerate(found)) / STEPS
        assert trial.scores[-1].metrics["loss"] == loss
        assert math.isclose(past[-1][0], 1.0)


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_seed_gives_one_search_whatever_the_number_of_gangs_and_their_speed(tmp_path: Path, scheduler: str) -> None:
    found = []
    for room in (1, 2, 5):
        workshop = Population(room, delays=random.Random(room))
        driver = searched(population(workshop, scheduler, lag=4), tmp_path / str(room))
        checked(driver)
        found.append((driver.decisions.works, told(driver.trials())))
    assert found[0] == found[1] == found[2]


def test_a_search_killed_after_any_write_ends_as_one_left_alone(tmp_path: Path) -> None:
    alone = Population()
    whole = searched(population(alone), tmp_path / "whole")
    checked(whole)
    for folder in cuts(tmp_path / "whole", tmp_path):
        workshop = Population(2, weights={key: list(one) for key, one in alone.weights.items()})
        driver = searched(population(workshop), folder)
        assert driver.decisions.works == whole.decisions.works
        assert told(driver.trials()) == told(whole.trials())


@pytest.mark.parametrize("lost", [{3}, {6}, {6, 9}, {3, 6, 9}])
def test_checkpoints_that_were_lost_are_trained_again_with_the_values_that_led_to_them(
    tmp_path: Path, lost: set[int]
) -> None:
    whole = searched(population(Population()), tmp_path / "whole")
    found = searched(population(Population(lost=lost)), tmp_path / "lost")
    assert told(found.trials()) == told(whole.trials())
    assert sum(found.decisions.steps_again().values()) > sum(whole.decisions.steps_again().values())


def test_a_gang_that_is_lost_while_it_trains_what_was_taken_over_changes_nothing(tmp_path: Path) -> None:
    whole = searched(population(Population()), tmp_path / "whole")
    hit: list[int] = []

    def on_step(gang: FakeGang) -> None:
        assert gang.place
        if not gang.place.is_own and len(hit) < 3:
            hit.append(1)
            raise GangLostError("a worker died")

    found = searched(population(Population(on_step=on_step), max_failures=5), tmp_path / "lost")
    assert len(hit) == 3
    assert told(found.trials()) == told(whole.trials())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grace": 0.6}, r"tune\.grace: 0\.6 given; pbt compares trials on their way, at most 0\.5"),
        ({"trials": 1}, r"tune\.trials: 1 given; pbt compares trials on their way, at least 2"),
    ],
)
def test_a_population_that_cannot_change_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneConfig.model_validate({"scheduler": "pbt", **values})
