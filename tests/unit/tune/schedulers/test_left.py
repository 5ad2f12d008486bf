"""What a search has left is foreseen as it comes to be: promotions are a part of it."""

from __future__ import annotations

import statistics

import pytest

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.catalog import build_scheduler
from heliostat.tune.schedulers.left import training_left
from heliostat.tune.trials import Begin, Continue, Score, Trial
from tests.unit.tune.gangs import LOSS
from tests.unit.tune.simulated import PowerLaws, Simulation

PARTS = (0.1, 0.25, 0.5, 0.75)


def foreseen(name: str, trials: int, seed: int) -> list[float]:
    """What was trained and foreseen once `PARTS` of a search were trained, over what it came to."""
    scheduler = build_scheduler(name, Settings((LOSS,), 0.25))
    seen: list[tuple[float, float]] = []

    def on_decision(table: list[Trial], decision: Begin | Continue | None) -> None:
        done = sum(trial.share for trial in table)
        seen.append((done, done + training_left(scheduler, table, trials)))

    problem = PowerLaws(seed, diverging=0.05)
    whole = Simulation(scheduler, problem, trials, 0.25, gangs=2, lag=2, on_decision=on_decision).run().trained
    return [next(guess for done, guess in seen if done >= part * whole) / whole for part in PARTS]


@pytest.mark.parametrize(("name", "within"), [("asha", 0.15), ("hyperband", 0.15), ("none", 0.05)])
@pytest.mark.parametrize("trials", [8, 16, 64])
def test_the_end_is_foreseen_from_the_beginning(name: str, within: float, trials: int) -> None:
    found = [foreseen(name, trials, seed) for seed in range(10)]
    assert [statistics.fmean(guesses) for guesses in zip(*found, strict=True)] == pytest.approx([1.0] * 4, abs=within)


def test_trials_that_the_median_rule_holds_are_a_measure_of_those_to_come() -> None:
    found = [foreseen("median", 16, seed) for seed in range(10)]
    assert statistics.fmean(guesses[2] for guesses in found) == pytest.approx(1.0, abs=0.25)


def resting(number: int, share: float) -> Trial:
    return Trial(number, {}, share, (Score(share, 1, {"loss": 1.0}),))


def test_promotions_on_their_way_count_in_part_and_nothing_is_left_at_the_end() -> None:
    asha = build_scheduler("asha", Settings((LOSS,), 0.25))
    begun = [resting(number, 0.25) for number in range(4)]
    assert training_left(asha, [], 4) == 4 * 0.25 + 2 * 0.25 + 1 * 0.5
    assert training_left(asha, begun, 4) == 2 * 0.25 + 0.5
    going = [Trial(0, {}, 0.5, begun[0].scores), *begun[1:]]
    assert training_left(asha, going, 4) == 2 * 0.25 + 0.5
    assert training_left(asha, [resting(0, 1.0), resting(1, 0.5), *begun[2:]], 4) == 0
    assert training_left(asha, [], 0) == 0


def test_trials_that_have_failed_or_were_stopped_have_nothing_left() -> None:
    full = build_scheduler("none", Settings((LOSS,), 0.25))
    failed, stopped = Trial(0, {}, 1.0, (), "no memory"), Trial(1, {}, 1.0, (), stopped="by a user")
    assert training_left(full, [failed, stopped, resting(2, 0.25)], 4) == 1.75
