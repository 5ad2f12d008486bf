"""The simulated search follows the rule of the real driver, so what is shown on it is true of searches."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from heliostat.tune.decisions import Decisions
from heliostat.tune.schedulers.base import Scheduler, Settings
from heliostat.tune.schedulers.catalog import KINDS, build_scheduler
from heliostat.tune.schedulers.explore import perturbed
from heliostat.tune.space.values import Range
from heliostat.tune.trials import Objective, Trial
from heliostat.tune.work import Result, Work
from tests.unit.tune.simulated import FallingRate, Simulation

RATE = {"rate": Range(1e-4, 1e-1, is_log=True)}


def build(name: str) -> Scheduler:
    settings = Settings(
        (Objective("loss", "min"),), 0.25, perturb=lambda values, rng: perturbed(values, rng, RATE), axes=RATE
    )
    return build_scheduler(name, settings)


class Proposals:
    """The values that a simulated search has."""

    def propose(self, trials: Sequence[Trial], number: int) -> Mapping[str, Any]:
        return FallingRate(1).propose(number)


def driven(name: str, order: random.Random) -> Decisions:
    """The real decisions about simulated trials, whose results arrive in any order."""
    decisions, room = Decisions(build(name), Proposals(), 8, 3), Simulation(build(name), FallingRate(1), 8, 0.25)
    on_the_way: list[Result] = []
    while not decisions.is_over:
        work = decisions.next()
        if work:
            on_the_way.append(_trained(room, decisions.trials[work.trial], work))
        if on_the_way and (work is None or order.random() < 0.5):
            decisions.arrived(on_the_way.pop(order.randrange(len(on_the_way))))
    return decisions


def _trained(room: Simulation, trial: Trial, work: Work) -> Result:
    place = (work.origin.trial, work.origin.share) if work.origin else (trial.number, trial.share)
    after = room.train(trial, room.states[place] if place[1] else FallingRate(1).start(trial.number))
    return Result(work.number, after.scores[len(trial.scores) :], after.error)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_driver_decides_as_the_simulation_whatever_arrives_first(name: str) -> None:
    simulated = Simulation(build(name), FallingRate(1), 8, 0.25, gangs=3, lag=3).run()
    assert len(simulated.decisions) >= 8
    for seed in range(3):
        real = driven(name, random.Random(seed))
        assert [work.until for work in real.works] == [one.until for one in simulated.decisions]
        assert list(real.trials) == simulated.table
