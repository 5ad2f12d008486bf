"""HyperBand: brackets of successive halving."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.hyperband import HyperBand, brackets
from heliostat.tune.trials import Begin, Continue, Objective, Score, Trial
from tests.unit.tune.simulated import PowerLaws, Simulation

LOSS = (Objective("loss", "min"),)
HYPERBAND = HyperBand(Settings(LOSS, grace=0.25, eta=2))


def trial(number: int, share: float, loss: float) -> Trial:
    return Trial(number, {}, share, (Score(share, 1, {"loss": loss}),))


def test_brackets_have_the_published_sizes() -> None:
    """Li et al. 2018, table 1: R = 81, eta = 3 gives 81, 34, 15, 8 and 5 configurations."""
    assert sorted(Counter(brackets(5, 3)).items()) == [(0, 81), (1, 34), (2, 15), (3, 8), (4, 5)]
    assert Counter(brackets(1, 2)) == {0: 1}


def test_any_first_part_of_a_cycle_has_the_brackets_in_proportion() -> None:
    cycle = brackets(5, 3)
    for part in range(1, len(cycle) + 1):
        for bracket, size in Counter(cycle).items():
            assert abs(cycle[:part].count(bracket) - size * part / len(cycle)) < 1.5


def test_a_new_trial_begins_at_the_rung_of_its_bracket() -> None:
    cycle = brackets(3, 2)
    assert sorted(Counter(cycle).items()) == [(0, 4), (1, 3), (2, 3)]
    table: list[Trial] = []
    for number in range(20):
        until = (0.25, 0.5, 1.0)[cycle[number % 10]]
        assert HYPERBAND.decide(table, True) == Begin(until)
        table.append(Trial(number, {}, until))


def test_trials_are_compared_with_those_of_their_bracket_alone() -> None:
    cycle = brackets(3, 2)
    low, middle = ([number for number in range(10) if cycle[number] == bracket] for bracket in (0, 1))
    table = sorted(
        [trial(low[0], 0.25, 0.1), trial(middle[0], 0.5, 0.5), trial(middle[1], 0.5, 0.6)], key=lambda one: one.number
    )
    assert HYPERBAND.decide(table, True) == Continue(middle[0], 1.0)
    table = [replace(one, until=1.0) if one.number == middle[0] else one for one in table]
    assert isinstance(HYPERBAND.decide(table, True), Begin)


def test_each_bracket_trains_somebody_in_full() -> None:
    found = Simulation(HYPERBAND, PowerLaws(1, diverging=0.0), 16, 0.25, gangs=3).run()
    cycle = brackets(3, 2)
    assert {cycle[one.number % 10] for one in found.table if one.share == 1} == {0, 1, 2}


@pytest.mark.parametrize("lag", [0, 2])
def test_the_same_seed_decides_the_same_with_any_number_of_gangs(lag: int) -> None:
    found = [
        Simulation(HYPERBAND, PowerLaws(2), 24, 0.25, gangs, lag, random.Random(gangs)).run() for gangs in (1, 2, 5)
    ]
    assert found[0].decisions == found[1].decisions == found[2].decisions
    assert found[0].table == found[1].table == found[2].table
