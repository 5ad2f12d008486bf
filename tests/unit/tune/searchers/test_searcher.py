"""What all searchers hold to: nothing twice, an end, points first, repeats where asked, the same for the same table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.tune.searchers import SEARCHERS, build_searcher
from heliostat.tune.trials import Objective, Trial
from tests.unit.tune.searchers.tables import (
    LOSS,
    MIXED,
    failed,
    finished,
    mixed_loss,
    paused,
    search,
    searcher,
    space,
    training,
)

QUICK = ("random", "tpe", "cmaes")
FINITE = {name: domain for name, domain in MIXED.items() if name in ("batch", "layers")}
SMALL: dict[str, dict[str, Any]] = {
    "a": {"grid": [1, 2, 3]},
    "b": {"choice": ["x", "y"], "when": {"a": 3}},
    "c": {"choice": [True, None]},
}
"""Of 2 + 2 + 4 configurations."""


@pytest.mark.parametrize("name", ["random", "grid", "tpe", "cmaes"])
def test_a_finite_space_is_proposed_once_and_then_nothing(name: str) -> None:
    found = space(SMALL)
    trials = search(searcher(name, SMALL), [], lambda values: values["a"], 100)
    identities = {found.identity(trial.values) for trial in trials}
    assert len(trials) == len(identities) == found.size == 8
    assert searcher(name, SMALL).propose(trials, 8) is None


def test_of_a_space_whose_rest_is_hardly_ever_drawn_the_rest_is_found() -> None:
    domains: dict[str, dict[str, Any]] = {"a": {"randint": [0, 5000]}}
    trials = [finished(number, {"a": number}, 0.0) for number in range(5000)]
    assert searcher("random", domains).propose(trials, 5000) == {"a": 5000}


@pytest.mark.parametrize("name", QUICK)
def test_no_configuration_comes_twice_and_all_are_inside(name: str) -> None:
    found = space({**FINITE, "dropout": MIXED["dropout"]})
    one = build_searcher(name, found, (LOSS,), 0)
    trials = search(one, [], lambda values: values["dropout"] + abs(values["layers"] - 6), 60)
    assert len({found.identity(trial.values) for trial in trials}) == 60
    assert all(found.part_inside(trial.values) == trial.values and found.is_complete(trial.values) for trial in trials)


@pytest.mark.parametrize("name", QUICK)
def test_a_fresh_searcher_goes_on_as_the_first_one_would(name: str) -> None:
    whole = search(searcher(name, MIXED), [], mixed_loss, 24)
    resumed = search(searcher(name, MIXED), whole[:15], mixed_loss, 24)
    assert [trial.values for trial in resumed] == [trial.values for trial in whole]


@pytest.mark.parametrize("name", [*QUICK, "gp"])
def test_the_same_is_proposed_whatever_was_asked_before(name: str) -> None:
    trials = search(searcher("random", MIXED), [], mixed_loss, 16)
    asked = searcher(name, MIXED)
    if name != "gp":  # which takes a second for each
        for number in range(16):
            asked.propose(trials[:number], number)
    copies = [replace(trial, values=json.loads(json.dumps(trial.values))) for trial in trials]  # as a journal has them
    assert asked.propose(trials, 16) == searcher(name, MIXED).propose(copies, 16) == asked.propose(trials, 16)


@pytest.mark.parametrize("name", QUICK)
def test_another_seed_or_number_gives_other_values(name: str) -> None:
    trials = search(searcher("random", MIXED), [], mixed_loss, 16)
    values = [searcher(name, MIXED, seed).propose(trials, number) for seed, number in ((0, 16), (1, 16), (0, 17))]
    assert len({json.dumps(one) for one in values}) == 3


NEW_PROCESS = """
import json
from tests.unit.tune.searchers.tables import MIXED, mixed_loss, search, searcher
trials = search(searcher("random", MIXED), [], mixed_loss, 16)
print(json.dumps([searcher(name, MIXED).propose(trials, 16) for name in ("random", "tpe", "gp", "cmaes")]))
"""


def test_a_new_process_proposes_the_same() -> None:
    trials = search(searcher("random", MIXED), [], mixed_loss, 16)
    here = [searcher(name, MIXED).propose(trials, 16) for name in ("random", "tpe", "gp", "cmaes")]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # sets of text have another order there
    ran = subprocess.run([sys.executable, "-c", NEW_PROCESS], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == here


POINTS: list[dict[str, Any]] = [
    {"learning_rate": 0.001, "layers": 6},
    {"optimizer": "sgd", "momentum": 0.25},
]


@pytest.mark.parametrize("name", ["random", "tpe", "cmaes"])
def test_points_come_first_with_what_they_lack_drawn(name: str) -> None:
    trials = search(searcher(name, MIXED, points=POINTS), [], mixed_loss, 4)
    for trial, point in zip(trials, POINTS, strict=False):
        assert trial.values.items() >= point.items()
        assert space(MIXED).is_complete(trial.values)
    assert trials[2].values["learning_rate"] != 0.001
    assert trials[2:] == search(searcher(name, MIXED), trials[:2], mixed_loss, 4)[2:]


def test_a_point_that_is_added_to_a_search_comes_next_and_one_that_was_tried_does_not() -> None:
    trials = search(searcher("random", MIXED, points=POINTS), [], mixed_loss, 5)
    more = [*POINTS, {"layers": 12, "dropout": 0.2, "learning_rate": 0.05}]
    values = searcher("random", MIXED, points=more).propose(trials, 5)
    assert values is not None
    assert values.items() >= more[2].items()


def test_a_trial_stands_for_one_point_and_a_point_that_is_a_part_of_another_is_tried_too() -> None:
    points: list[dict[str, Any]] = [{"batch": 16}, {"batch": 16, "layers": 6}]
    for order in (points, points[::-1]):
        trials = search(searcher("random", FINITE, points=order), [], lambda values: 0.0, 2)
        assert [trial.values["batch"] for trial in trials] == [16, 16]
        assert {trial.values["layers"] for trial in trials} > {6}
    both = finished(0, points[1], 0.0)  # it stands for the second, which nothing else can
    for seed in range(8):
        values = searcher("random", FINITE, seed, points=points).propose([both], 1)
        assert values is not None
        assert (values["batch"], values["layers"] == 6) == (16, False)


def test_a_grid_does_not_come_back_to_a_point() -> None:
    trials = search(searcher("grid", {"a": {"choice": [1, 2]}}, points=[{"a": 2}]), [], lambda values: 0.0, 9)
    assert [trial.values for trial in trials] == [{"a": 2}, {"a": 1}]


def test_a_configuration_is_repeated_as_often_as_asked_unless_it_has_failed() -> None:
    one = searcher("grid", {"a": {"choice": [1, 2]}}, repeats=3)
    trials = search(one, [], lambda values: 0.0, 100)
    first, other = trials[0].values["a"], trials[3].values["a"]
    assert {first, other} == {1, 2}
    assert [trial.values["a"] for trial in trials] == [first] * 3 + [other] * 3
    assert one.propose(trials, 6) is None
    assert one.propose([failed(0, {"a": 1})], 1) == {"a": 2}
    assert one.propose([training(0, {"a": 1})], 1) == {"a": 1}


def test_a_grid_is_gone_through_once_in_an_order_that_follows_from_the_seed() -> None:
    domains = {"a": {"randint": [0, 39]}}

    def order(seed: int) -> list[int]:
        return [trial.values["a"] for trial in search(searcher("grid", domains, seed=seed), [], lambda _: 0.0, 99)]

    assert sorted(order(0)) == list(range(40))
    assert order(0) == order(0)
    assert order(0) != order(1)
    rises = sum(one < other for one, other in pairwise(order(0)))
    assert 10 < rises < 30  # of 39: values that get better and better would all be promoted


@pytest.mark.parametrize("name", QUICK)
def test_trials_of_another_space_do_no_harm(name: str) -> None:
    old: list[Trial] = []
    for number in range(12):
        values = {"learning_rate": 10.0 ** -(number % 5), "batch": [16, 48][number % 2], "gone": number}
        old.append([finished(number, values, 1.0), paused(number, values, 0.5, 1.0)][number % 2])
    found = space(MIXED)
    trials = search(searcher(name, MIXED), old, mixed_loss, 18)
    assert all(found.is_complete(found.part_inside(trial.values) or {}) for trial in trials[12:])


def test_a_space_of_one_configuration_is_tried_once() -> None:
    for name in ("random", "grid", "tpe", "gp"):
        one = searcher(name, {"a": {"choice": [[1, 2]]}})
        trials = search(one, [], lambda values: 0.0, 5)
        assert [trial.values for trial in trials] == [{"a": [1, 2]}]


def test_nothing_heavy_is_loaded_before_a_searcher_is_built() -> None:
    check = """
import sys
import heliostat.tune.searchers, heliostat.tune.space.space
print([name for name in ("optuna", "torch", "ray", "numpy", "cmaes", "sklearn") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_names_are_those_that_specs_use_and_optuna_is_tpe() -> None:
    assert set(SEARCHERS) == {"random", "grid", "tpe", "optuna", "gp", "cmaes"}
    trials = search(searcher("random", MIXED), [], mixed_loss, 12)
    assert searcher("optuna", MIXED).propose(trials, 12) == searcher("tpe", MIXED).propose(trials, 12)


@pytest.mark.parametrize(
    ("name", "domains", "objectives", "message"),
    [
        ("random", {}, 1, r"^tune\.space: empty; give at least one key"),
        ("grid", MIXED, 1, r"^tune\.space\.momentum: uniform: \[0\.0, 1\.0\] given; tune\.search: grid needs choice"),
        ("cmaes", {"a": {"choice": [1, 2]}}, 1, r"^tune\.search: cmaes needs a key without a condition that has uni"),
        ("cmaes", MIXED, 2, r"^tune\.search: cmaes takes one objective; tpe and gp take several$"),
    ],
)
def test_a_space_that_a_searcher_has_no_use_for_is_refused(
    name: str, domains: dict[str, Any], objectives: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        searcher(name, domains, objectives=(LOSS, Objective("seconds", "min"))[:objectives])
