"""Searchers that learn find better values than random draws, of each kind of space that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from statistics import median
from typing import Any

import pytest

from heliostat.tune.trials import Objective, Score, Trial
from tests.unit.tune.searchers.tables import failed, finished, paused, search, searcher, training

SEEDS = range(5)
NUMERIC: dict[str, dict[str, Any]] = {
    "x": {"uniform": [0, 1]},
    "rate": {"loguniform": [1e-4, 1]},
    "z": {"uniform": [0, 1]},
}


def bowl(values: Mapping[str, Any]) -> float:
    return float((values["x"] - 0.7) ** 2 + (log10(values["rate"]) + 2.5) ** 2 / 16 + (values["z"] - 0.2) ** 2)


def best(name: str, seed: int, trials: int) -> float:
    return min(bowl(trial.values) for trial in search(searcher(name, NUMERIC, seed), [], bowl, trials))


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_over_seeds_a_searcher_that_learns_comes_far_closer_than_random_draws(name: str) -> None:
    found = median(best(name, seed, 60) for seed in SEEDS)
    assert found < median(best("random", seed, 60) for seed in SEEDS) / 2  # a fifth to a twentieth was measured


def test_a_gaussian_process_comes_closer_in_a_few_trials() -> None:
    assert best("gp", 1, 20) < median(best("random", seed, 20) for seed in range(15)) / 2  # a twentieth was measured


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_a_searcher_learns_while_eight_trials_are_training(name: str) -> None:
    def found(seed: int) -> float:
        one, proposed = searcher(name, NUMERIC, seed), list[Mapping[str, Any]]()
        for number in range(60):
            known = [finished(index, values, bowl(values)) for index, values in enumerate(proposed[: number - 7])]
            values = one.propose([*known, *map(training, range(len(known), number), proposed[len(known) :])], number)
            assert values is not None
            proposed.append(values)
        return min(map(bowl, proposed))

    assert median(map(found, SEEDS)) < median(best("random", seed, 60) for seed in SEEDS) / 2


def test_tpe_learns_which_branch_of_a_space_is_best() -> None:
    branches: dict[str, dict[str, Any]] = {
        "optimizer": {"choice": ["a", "b", "c"]},
        "momentum": {"uniform": [0, 1], "when": {"optimizer": "b"}},
        "rate": {"loguniform": [1e-4, 1]},
    }

    def loss(values: Mapping[str, Any]) -> float:
        apart = (values["momentum"] - 0.9) ** 2 if "momentum" in values else 0.5
        return float((log10(values["rate"]) + 2) ** 2 / 4 + apart)

    def share(seed: int) -> float:
        trials = search(searcher("tpe", branches, seed), [], loss, 60)[-20:]
        return sum(trial.values["optimizer"] == "b" for trial in trials) / 20

    assert median(map(share, SEEDS)) > 0.5  # a third by chance


def test_tpe_learns_from_several_objectives_what_is_good_for_all() -> None:
    two = (Objective("sum", "min"), Objective("difference", "max"))

    def middle(seed: int) -> float:
        one = searcher("tpe", {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}, seed, objectives=two)
        trials: list[Trial] = []
        for number in range(50):
            values = one.propose(trials, number)
            assert values is not None
            x, y = values["x"], values["y"]
            trials.append(Trial(number, values, 1.0, (Score(1.0, 1, {"sum": x + y, "difference": x - y}),)))
        return median(trial.values["y"] for trial in trials[-25:])

    assert median(map(middle, SEEDS)) < 0.3  # 0.5 by chance


def test_cmaes_ranks_failed_trials_last_and_the_longer_trained_first() -> None:
    one, trials = searcher("cmaes", NUMERIC), list[Trial]()
    for number in range(100):
        values = one.propose(trials, number)
        assert values is not None
        x, loss = values["x"], bowl(values)
        told = failed(number, values) if x < 0.5 else paused(number, values, 0.5, loss) if x < 0.6 else None
        trials.append(told or finished(number, values, loss + 9))  # worse than the paused ones, but longer trained
    first, last = ([trial.values["x"] for trial in part] for part in (trials[:30], trials[-30:]))
    assert sum(x < 0.5 for x in first) > 3 > sum(x < 0.5 for x in last)
    assert sum(x < 0.6 for x in first) > 9 > sum(x < 0.6 for x in last)
