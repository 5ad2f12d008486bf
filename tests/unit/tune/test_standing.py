"""What runs on several seeds say of the best of a search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from heliostat.tune.ranking import best_first, mean, means, pareto_front
from heliostat.tune.standing import verdict
from heliostat.tune.trials import Objective, Score, Trial
from tests.trials import ACCURACY, CONFIRMED, LATENCY, SEARCHED, again, full, trial

GOALS = (ACCURACY,)


def numbers(trials: list[Trial]) -> list[int]:
    return [one.number for one in trials]


def repeat(number: int, accuracies: list[float], of: int, seed: int) -> Trial:
    return trial(number, accuracies, {"learning_rate": 0.1, "train.seed": seed}, repeats=of)


def test_new_runs_alone_decide_between_those_that_have_them_in_any_order_of_arrival() -> None:
    assert numbers(best_first(SEARCHED, GOALS)) == [0, 1, 2]
    for order in (CONFIRMED, CONFIRMED[::-1]):
        assert numbers(best_first(order, GOALS)) == [1, 6, 7, 8, 0, 3, 4, 5, 2]
        found = verdict(order, GOALS)
        assert found
        assert [one.number for one in found.standings] == [1, 0]
        assert [one.over_seeds.mean for one in found.standings] == pytest.approx([0.84, 0.81])
        assert [one.over_seeds.deviation for one in found.standings] == pytest.approx([0.01, 0.01])
        assert "train.seed" not in found.standings[0].values


def test_the_best_is_told_with_the_interval_of_its_gain_over_the_second() -> None:
    found = verdict(CONFIRMED, GOALS)
    assert found
    gain = found.standings[1].behind
    assert gain
    assert (found.standings[0].behind, gain.method) == (None, "paired t")
    width = 4.302653 * 0.01 / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.03, 0.03 - width, 0.03 + width))
    assert found.sentences == [
        "trial 1 is better than trial 0 by 0.03 (95% interval of the gain 0.005159 to 0.05484, paired t over 3 seeds)"
    ]


def test_an_interval_that_holds_zero_is_said() -> None:
    close = [*CONFIRMED[:5], full(5, 0.86, values=CONFIRMED[5].values, confirms=0), *CONFIRMED[6:]]
    found = verdict(close, GOALS)
    assert found
    assert found.sentences[0].endswith("; it holds zero: the two cannot be told apart")


def test_seeds_on_which_not_all_have_ended_do_not_count() -> None:
    running = replace(CONFIRMED[8], scores=CONFIRMED[8].scores[:1], until=1)
    found = verdict([*CONFIRMED[:8], running], GOALS)
    assert found
    assert [one.over_seeds.runs for one in found.standings] == [2, 2]
    assert found.sentences[-1] == "1 of the runs on new seeds has not ended"
    begun = [*SEARCHED, CONFIRMED[3], replace(running, number=4)]
    assert numbers(best_first(begun, GOALS))[:2] == [0, 3], "the other one has had no chance yet"
    found = verdict(begun, GOALS)
    assert found
    assert (found.standings, found.sentences) == ([], ["1 of the runs on new seeds has not ended"])


def test_one_that_fails_on_a_new_seed_comes_after_those_that_do_not_and_before_the_unconfirmed() -> None:
    failed = replace(CONFIRMED[8], error="accuracy: not finite")
    trials = [*CONFIRMED[:8], failed]
    assert numbers(best_first(trials, GOALS)) == [0, 3, 4, 5, 1, 6, 7, 8, 2]
    found = verdict(trials, GOALS)
    assert found
    assert [(one.number, one.over_seeds.runs, one.over_seeds.failed) for one in found.standings] == [
        (0, 3, 0),
        (1, 2, 1),
    ]
    lost = [*CONFIRMED[:6], *(replace(one, error="no") for one in CONFIRMED[6:])]
    assert [one for one in numbers(best_first(lost, GOALS)) if one < 3] == [0, 2, 1], "it works on no new seed"


def test_repeats_are_compared_by_the_mean_of_the_best_validation_of_each() -> None:
    lucky = [trial(0, [0.99, 0.5], {"learning_rate": 0.1}), repeat(1, [0.5, 0.6], 0, 1)]
    steady = [trial(2, [0.7, 0.8], {"learning_rate": 0.2}), repeat(3, [0.81, 0.7], 2, 1)]
    assert numbers(best_first([*lucky, *steady], GOALS)) == [2, 3, 0, 1]
    found = verdict([*lucky, *steady], GOALS)
    assert found
    assert not found.is_confirmed
    assert [one.over_seeds.mean for one in found.standings] == [pytest.approx(0.805), pytest.approx(0.795)]
    merged = mean(lucky, GOALS, 2)
    assert [score.metrics["accuracy"] for score in merged.scores] == [pytest.approx(0.745), pytest.approx(0.795)]


def test_a_mean_needs_all_runs_and_stops_at_the_least_share() -> None:
    first, second = trial(0, [0.5, 0.6, 0.7]), repeat(1, [0.7], 0, 1)
    assert mean([first], GOALS, 2).scores == ()
    assert mean([first], GOALS) is first
    assert [score.share for score in mean([first, second], GOALS, 2).scores] == [0.25]
    assert mean([first, replace(second, error="no memory")], GOALS, 2).error == "no memory"
    assert mean([first, replace(second, stopped="by a user")], GOALS, 2).stopped == "by a user"


def test_one_with_fewer_repeats_than_the_others_is_behind_them() -> None:
    whole = [trial(0, [0.5], {"learning_rate": 0.1}), repeat(1, [0.5], 0, 1)]
    part = trial(2, [0.9])
    assert numbers(best_first([*whole, part], GOALS)) == [0, 1, 2]
    assert [one.number for one in means([*whole, part], GOALS)] == [0, 2]


def test_the_front_is_that_of_the_means() -> None:
    def both(number: int, accuracy: float, latency: float, confirms: int | None = None) -> Trial:
        values = {"learning_rate": 0.1, **({} if confirms is None else {"train.seed": 1000})}
        score = Score(1, 10, {"accuracy": accuracy, "latency": latency})
        return Trial(number, values, 1.0, (score,), confirms=confirms)

    goals: tuple[Objective, ...] = (ACCURACY, LATENCY)
    trials = [both(0, 0.9, 10), both(1, 0.8, 5), both(2, 0.99, 1)]
    assert numbers(pareto_front(trials, goals)) == [2]
    confirmed = [*trials, both(3, 0.7, 10, 0), both(4, 0.8, 5, 1)]
    assert numbers(pareto_front(confirmed, goals)) == [1]


def test_a_search_in_which_each_configuration_ran_once_has_no_verdict() -> None:
    assert verdict(SEARCHED, GOALS) is None
    assert verdict([], GOALS) is None


def test_a_single_one_that_is_run_again_has_a_mean_and_nobody_to_be_compared_with() -> None:
    found = verdict([*SEARCHED, again(3, 0.5, SEARCHED[0], 1000), again(4, 0.6, SEARCHED[0], 1001)], GOALS)
    assert found
    assert found.standings[0].over_seeds.mean == pytest.approx(0.55)
    assert found.sentences == []
