"""Asynchronous successive halving with promotion."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest

from heliostat.tune.ranking import best_first, pareto_front
from heliostat.tune.schedulers.asha import Asha
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import rungs
from heliostat.tune.trials import Begin, Continue, Objective, Score, Trial
from tests.unit.tune.simulated import PowerLaws, Simulation, SizedPowerLaws, hypervolume

LOSS = (Objective("loss", "min"),)
BOTH = (Objective("loss", "min"), Objective("size", "min"))
ASHA = Asha(Settings(LOSS, grace=0.25, eta=2))


def trial(number: int, *losses: float, until: float | None = None, error: str | None = None) -> Trial:
    scores = tuple(Score(0.25 * (k + 1), k, {"loss": loss}) for k, loss in enumerate(losses))
    return Trial(number, {}, until or 0.25 * len(losses), scores, error)


def search(
    seed: int, gangs: int = 2, lag: int = 1, grace: float = 0.25, eta: float = 2, trials: int = 16
) -> Simulation:
    asha = Asha(Settings(LOSS, grace, eta))
    return Simulation(asha, PowerLaws(seed), trials, grace, gangs, lag, random.Random(seed + gangs)).run()


@pytest.mark.parametrize(
    ("grace", "eta", "expected"),
    [
        (0.25, 2, (0.25, 0.5, 1.0)),
        (0.1, 3, (0.1, 0.3, 1.0)),  # 0.9 is too near to the end
        (0.3, 2, (0.3, 0.6, 1.0)),
        (0.1, 2.5, (0.1, 0.2, 0.6, 1.0)),
        (0.25, 8, (0.25, 1.0)),
        (0.8, 2, (0.8, 1.0)),
        (1.0, 2, (1.0,)),
        (0.0625, 2, (0.0625, 0.125, 0.25, 0.5, 1.0)),
    ],
)
def test_rungs_grow_by_eta_in_multiples_of_the_grace_share(grace: float, eta: float, expected: tuple) -> None:
    assert rungs(grace, eta) == expected


def test_the_highest_rung_with_someone_to_promote_comes_first() -> None:
    table = [trial(0, 0.5, 0.5), trial(1, 0.4, 0.4), trial(2, 0.1), trial(3, 0.9)]
    assert ASHA.decide(table, True) == Continue(1, 1.0)
    assert ASHA.decide([table[0], replace(table[1], until=1.0), *table[2:]], True) == Continue(2, 0.5)


def test_a_new_trial_begins_where_nobody_is_in_the_top() -> None:
    assert ASHA.decide([], True) == Begin(0.25)
    assert ASHA.decide([trial(0, 0.5)], True) == Begin(0.25)
    promoted = [trial(0, 0.5, until=0.5), trial(1, 0.6), trial(2, 0.7)]
    assert ASHA.decide(promoted, True) == Begin(0.25)
    assert ASHA.decide([*promoted, trial(3, 0.8)], True) == Continue(1, 0.5)


def test_the_best_validation_until_the_rung_counts() -> None:
    table = [trial(0, 0.1, 0.9), trial(1, 0.2, 0.2), trial(2, 0.8, until=0.25)]
    assert ASHA.decide(table, False) == Continue(0, 1.0)


def test_equal_trials_are_promoted_by_number() -> None:
    assert ASHA.decide([trial(4, 0.5), trial(7, 0.5)], True) == Continue(4, 0.5)


@pytest.mark.parametrize(
    "broken", [trial(0, math.nan), trial(0, until=0.25, error="out of memory"), trial(0, -math.inf)]
)
def test_a_failed_trial_is_the_worst_of_its_rung_and_never_promoted(broken: Trial) -> None:
    assert ASHA.decide([broken, trial(1, 0.5)], True) == Continue(1, 0.5)
    assert ASHA.decide([broken, replace(broken, number=1)], False) is None


def test_a_trial_that_fails_higher_up_keeps_its_place_below() -> None:
    failed = trial(0, 0.1, until=0.5, error="lost")
    assert ASHA.decide([failed, trial(1, 0.5), trial(2, 0.6)], True) == Begin(0.25)
    assert ASHA.decide([failed, trial(1, 0.5), trial(2, 0.6), trial(3, 0.7)], True) == Continue(1, 0.5)


def test_a_stopped_trial_leaves_its_place_to_others() -> None:
    table = [replace(trial(0, 0.1), stopped="by hand"), trial(1, 0.5)]
    assert ASHA.decide(table, True) == Begin(0.25)
    assert ASHA.decide([*table, trial(2, 0.6)], True) == Continue(1, 0.5)


def test_somebody_is_trained_in_full_however_few_there_are() -> None:
    assert ASHA.decide([trial(0, 0.5)], False) == Continue(0, 0.5)
    assert ASHA.decide([trial(0, 0.5, 0.4)], False) == Continue(0, 1.0)
    assert ASHA.decide([trial(0, 0.5, 0.4, 0.3, 0.2)], False) is None
    assert ASHA.decide([trial(0, 0.5), trial(1, until=0.25)], False) is None  # wait for it


def test_when_the_best_fails_the_next_one_goes_on() -> None:
    lost = trial(0, 0.1, 0.1, until=1.0, error="lost")
    assert ASHA.decide([lost, trial(1, 0.5)], False) == Continue(1, 0.5)
    stopped = replace(trial(0, 0.1, 0.1), stopped="by hand")
    assert ASHA.decide([stopped, trial(1, 0.5)], False) == Continue(1, 0.5)


def test_a_trial_between_rungs_goes_on_to_the_next() -> None:
    assert ASHA.decide([trial(0, 0.5, 0.4, 0.3)], True) == Continue(0, 1.0)
    assert ASHA.decide([trial(0, 0.5, 0.4, math.nan)], True) == Begin(0.25)


def test_several_objectives_promote_by_front_and_then_the_less_crowded() -> None:
    asha = Asha(Settings(BOTH, grace=0.25, eta=2))
    values = [(0.1, 9.0), (0.5, 1.0), (0.4, 5.0), (0.45, 4.9), (0.9, 9.5), (0.9, 9.6), (0.9, 9.7), (0.9, 9.8)]
    table = [Trial(k, {}, 0.25, (Score(0.25, 1, {"loss": a, "size": b}),)) for k, (a, b) in enumerate(values)]
    promoted = []
    while isinstance(decision := asha.decide(table, True), Continue):
        promoted.append(decision.trial)
        table[decision.trial] = replace(table[decision.trial], until=0.5)
    assert promoted[:2] == [0, 1]
    assert sorted(promoted) == [0, 1, 2, 3]


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_the_same_seed_decides_the_same_with_any_number_of_gangs(lag: int) -> None:
    for seed in range(4):
        found = [search(seed, gangs, lag) for gangs in (1, 2, 5)]
        assert found[0].decisions == found[1].decisions == found[2].decisions
        assert found[0].table == found[1].table == found[2].table


def test_every_search_trains_somebody_in_full_and_nobody_twice() -> None:
    for trials in (1, 2, 3, 5, 16):
        found = search(seed=trials, trials=trials)
        assert any(one.share == 1 for one in found.table) or all(one.error for one in found.table)
        assert found.trained == pytest.approx(sum(one.share for one in found.table))


@pytest.mark.parametrize("are_winners_slow", [False, True])
def test_sixteen_configurations_come_within_a_hundredth_of_the_best_of_the_grid_at_a_third_of_its_steps(
    are_winners_slow: bool,
) -> None:
    gaps, steps = [], []
    for seed in range(40):
        problem = PowerLaws(seed, are_winners_slow=are_winners_slow)
        found = Simulation(Asha(Settings(LOSS, 1 / 16, 2)), problem, 16, 1 / 16, 2, 1, random.Random(seed)).run()
        grid = [problem.propose(number) for number in range(16)]
        best = min(problem.error(values, 1.0) for values in grid if values["diverges_at"] > 1)
        gaps.append(problem.error(best_first(found.table, LOSS)[0].values, 1.0) / best - 1)
        steps.append(found.trained / 16)
    assert statistics.median(gaps) <= 0.01
    assert statistics.median(steps) <= 0.3
    assert sum(gap <= 0.01 for gap in gaps) >= 32


def test_a_front_that_is_larger_than_the_top_goes_on_in_full_once_all_have_come() -> None:
    asha = Asha(Settings(BOTH, grace=0.25, eta=4))
    values = [(0.1, 9.0), (0.2, 5.0), (0.5, 1.0), (0.6, 9.0)]
    table = [Trial(k, {}, 0.25, (Score(0.25, 1, {"loss": a, "size": b}),)) for k, (a, b) in enumerate(values)]
    table[0] = replace(table[0], until=1.0)
    assert asha.decide(table, True) == Begin(0.25)
    assert asha.decide([*table, Trial(4, {}, 0.25)], False) is None
    assert asha.decide(table, False) == Continue(1, 1.0)
    table[1] = replace(table[1], until=1.0)
    assert asha.decide(table, False) == Continue(2, 1.0)
    table[2] = replace(table[2], until=1.0)
    assert asha.decide(table, False) is None


@pytest.mark.parametrize(("trials", "eta"), [(32, 4), (64, 2)])
def test_several_objectives_give_the_front_of_full_runs_at_two_fifths_of_their_steps(trials: int, eta: float) -> None:
    shares, steps = [], []
    for seed in range(20):
        problem, asha = SizedPowerLaws(seed), Asha(Settings(BOTH, 1 / 16, eta))
        found = Simulation(asha, problem, trials, 1 / 16, 2, trials // 4, random.Random(seed)).run()
        grid = [values for values in map(problem.propose, range(trials)) if values["diverges_at"] > 1]
        front = [trial.values for trial in pareto_front(found.table, BOTH)]
        areas = [hypervolume((problem.error(one, 1.0), one["size"]) for one in some) for some in (front, grid)]
        shares.append(areas[0] / areas[1])
        steps.append(found.trained / trials)
    assert statistics.median(shares) >= 0.99
    assert min(shares) >= 0.95
    assert statistics.median(steps) <= 0.4
