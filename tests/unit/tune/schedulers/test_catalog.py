"""What holds of every scheduler that can be named."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from heliostat.tune.ranking import best_first
from heliostat.tune.schedulers.base import Scheduler, Settings
from heliostat.tune.schedulers.catalog import KINDS, build_scheduler
from heliostat.tune.trials import Begin, Continue, Objective, Score, Trial, go_on
from tests.unit.tune.simulated import PowerLaws, Simulation

LOSS = (Objective("loss", "min"),)
BOTH = (Objective("loss", "min"), Objective("size", "min"))


def build(name: str, objectives: tuple[Objective, ...] = LOSS) -> Scheduler:
    return build_scheduler(name, Settings(objectives, 0.25, 2, seed=3, perturb=lambda values, rng: dict(values)))


@dataclass
class Curves:
    """Trials whose losses at 0.25, 0.5, 0.75 and 1 are given."""

    curves: tuple[tuple[float, ...], ...]

    def propose(self, number: int) -> dict[str, Any]:
        return {"curve": number}

    def start(self, number: int) -> None:
        return None

    def train(
        self, state: None, values: Mapping[str, Any], number: int, start: float, end: float
    ) -> tuple[None, float]:
        return None, self.curves[values["curve"]][round(4 * end) - 1]


OVERFITTING = (0.5, 0.2, 0.6, 0.9)
EARLY_HIGH_SCORE = (0.01, math.nan, math.nan, math.nan)
STEADY = (0.6, 0.5, 0.4, 0.3)
SLOW = (0.9, 0.8, 0.7, 0.65)


class Speeds(random.Random):
    """Jobs that take so long, by turns."""

    def __init__(self, seconds: tuple[float, ...]) -> None:
        super().__init__()
        self._seconds = itertools.cycle(seconds)

    def lognormvariate(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return next(self._seconds)


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
@pytest.mark.parametrize("gangs", [2, 4])
def test_the_winner_is_the_same_in_every_order_of_arrival(name: str, gangs: int) -> None:
    problem = Curves((EARLY_HIGH_SCORE, STEADY, OVERFITTING, SLOW))
    found = [
        Simulation(build(name), problem, 4, 0.25, gangs, 3, Speeds(seconds)).run()
        for seconds in itertools.permutations((0.1, 1.0, 7.0, 40.0))
    ]
    assert {best_first(one.table, LOSS)[0].number for one in found} == {2}
    assert len({repr(one.decisions) for one in found}) == 1
    assert len({tuple(one.arrivals) for one in found}) > 3


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_search_goes_on_after_a_kill_as_it_would_have(name: str) -> None:
    """A scheduler that is built anew in the middle decides as the one that was there from the start."""
    seen: list[tuple[list[Trial], Begin | Continue | None]] = []
    scheduler, problem = build(name), PowerLaws(5)
    Simulation(scheduler, problem, 8, 0.25, on_decision=lambda trials, one: seen.append((trials, one))).run()
    assert seen[-1][1] is None
    for trials, decision in random.Random(0).sample(seen, len(seen)):
        assert build(name).decide(trials, len(trials) < 8) == decision


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("objectives", [LOSS, BOTH])
def test_whatever_fails_or_is_stopped_a_search_ends_and_tells_nobody_to_do_what_he_cannot(
    name: str, objectives: tuple[Objective, ...]
) -> None:
    for seed in range(8):
        draw, table = random.Random(seed), list[Trial]()
        scheduler = build(name, objectives)
        for _ in range(500):
            decision = scheduler.decide(table, len(table) < 12)
            training = [trial for trial in table if trial.is_training]
            if decision is None and not training:
                break
            if isinstance(decision, Begin):
                table.append(Trial(len(table), {}, decision.until))
            elif decision is not None:
                before = table[decision.trial]
                assert before.share < decision.until <= 1
                assert before.error is before.stopped is None
                assert not before.is_training
                table[decision.trial] = go_on(before, decision)
            if decision is None or draw.random() < 0.5:
                _advance(table, draw)
        else:
            pytest.fail("it never ends")
        usable = [trial for trial in table if not trial.error and not trial.stopped]
        assert not usable or any(trial.share == 1 for trial in table)


def _advance(table: list[Trial], draw: random.Random) -> None:
    """Something happens to a trial in training, and sometimes a user stops another one."""
    training = [trial for trial in table if trial.is_training]
    if draw.random() < 0.05:
        stopped = draw.choice(table)
        table[stopped.number] = replace(stopped, stopped="by hand")
    elif training:
        trial = draw.choice(training)
        scores = [
            Score(share, 1, {"loss": draw.random(), "size": draw.random()})
            for share in (0.25, 0.5, 0.75, 1.0)
            if trial.share < share <= trial.until
        ]
        error = "lost" if draw.random() < 0.1 else None
        scores = scores[: draw.randrange(len(scores))] if error else scores
        table[trial.number] = replace(trial, scores=(*trial.scores, *scores), error=error)


def test_each_says_in_a_line_what_it_does_and_when_to_take_it() -> None:
    for kind in KINDS.values():
        assert kind.does
        assert kind.take_it
        assert "\n" not in kind.does + kind.take_it


def test_naming_them_loads_nothing_heavy() -> None:
    heavy = {"torch", "ray", "numpy", "scipy", "sklearn", "optuna"}
    ours = "heliostat.tune.schedulers.catalog, heliostat.tune.statistics"
    subprocess.run([sys.executable, "-c", f"import sys, {ours}; assert not {heavy} & set(sys.modules)"], check=True)
