"""Which trial a rule takes, the same one wherever it is asked."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from heliostat.infra.errors import TrainingError
from heliostat.tune.choice import Rule, choose, told, unmet
from heliostat.tune.ranking import best_first, pareto_front
from heliostat.tune.reports.files import to_json
from heliostat.tune.reports.search_report import render
from heliostat.tune.reports.table import rows
from heliostat.tune.search import Search
from heliostat.tune.state import PageState, SearchState
from heliostat.tune.trials import Objective, Score, Trial
from heliostat.view.search import best_values

F1, MS = Objective("f1", "max"), Objective("latency_ms", "min")
BOTH = (F1, MS)


def trial(number: int, f1: float, ms: float, share: float = 1.0, **more: Any) -> Trial:
    return Trial(number, {"x": number}, share, (Score(share, 1, {"f1": f1, "latency_ms": ms}),), **more)


FRONT = [trial(0, 0.90, 40), trial(1, 0.89, 11), trial(2, 0.70, 10), trial(3, 0.88, 30), trial(4, 0.99, 9, share=0.5)]


def taken(rule: Rule, trials: list[Trial] = FRONT) -> int | None:
    found = choose(trials, BOTH, rule)
    return None if found is None else found.number


def test_first_takes_the_best_in_the_first_objective_of_those_trained_furthest() -> None:
    assert taken("first") == 0


def test_the_knee_is_the_farthest_from_the_line_through_the_ends_whatever_the_units() -> None:
    assert taken("knee") == 1
    scaled = [trial(one.number, *_scaled(one)) for one in FRONT[:4]]
    assert taken("knee", scaled) == 1
    assert taken("knee", FRONT[:1]) == 0
    assert taken("knee", [FRONT[0], FRONT[2]]) == 0  # both are ends, and first decides


def _scaled(one: Trial) -> tuple[float, float]:
    metrics = one.scores[0].metrics
    return metrics["f1"] * 1000 + 5, metrics["latency_ms"] / 1000


def test_bounds_leave_those_that_keep_them_and_the_first_objective_decides() -> None:
    assert taken({"latency_ms": {"max": 40}}) == 0
    assert taken({"latency_ms": {"max": 20}}) == 1
    assert taken({"latency_ms": {"max": 10}}) == 2
    assert taken({"latency_ms": {"max": 9.5}}) == 4  # no other keeps it, however far it was trained
    assert taken({"latency_ms": {"max": 20}, "f1": {"min": 0.9}}) == 4
    assert taken({"latency_ms": {"max": 1}}) is None


def test_where_none_keeps_the_bounds_the_nearest_is_named() -> None:
    rule = {"latency_ms": {"max": 8.0}}
    line = "tune.choose: latency_ms max 8 given, and no trial keeps that; the nearest is trial 4 with latency_ms 9"
    assert unmet(FRONT, BOTH, rule) == line
    with pytest.raises(TrainingError, match=r"^tune\.choose: latency_ms max 8 given, and no trial keeps that"):
        assert Search(FRONT, BOTH, rule).best
    assert unmet([], BOTH, rule) == unmet(FRONT, BOTH, "knee") == unmet(FRONT, BOTH, {"latency_ms": {"max": 10}}) == ""


def test_failed_trials_and_those_without_a_number_are_never_taken() -> None:
    lost = [trial(0, 0.99, 1, error="lost"), trial(1, 0.99, math.nan), trial(2, math.inf, 1), trial(3, 0.1, 50)]
    for rule in ("first", "knee", {"latency_ms": {"max": 50.0}}):
        assert taken(rule, lost) == 3
        assert taken(rule, lost[:3]) is None


def test_one_objective_takes_the_first_of_the_ranking() -> None:
    draw = random.Random(0)
    for _ in range(20):
        trials = [trial(number, draw.randrange(5), 1, draw.choice([0.5, 1.0])) for number in range(8)]
        assert choose(trials, (F1,)) == best_first(trials, (F1,))[0]


def test_what_is_taken_without_bounds_is_on_the_front() -> None:
    draw = random.Random(1)
    for _ in range(20):
        trials = [trial(number, draw.random(), draw.random(), draw.choice([0.5, 1.0])) for number in range(9)]
        front = pareto_front(trials, BOTH)
        assert choose(trials, BOTH) == max(front, key=lambda one: one.scores[0].metrics["f1"])
        assert choose(trials, BOTH, "knee") in front


@pytest.mark.parametrize("rule", ["first", "knee", {"latency_ms": {"max": 20.0}}, {"latency_ms": {"max": 10.0}}])
def test_table_files_page_and_terminal_name_the_trial_that_the_search_takes(rule: Rule) -> None:
    state = SearchState("s", BOTH, FRONT, rule=rule, wanted=5)
    best = Search(FRONT, BOTH, rule).best
    found = rows(state)
    assert found[0].number == best.number
    assert [one.number for one in found if one.is_chosen] == [best.number]
    assert {one.number for one in found if one.is_front} == {0, 1, 2}
    assert f'"trial": {best.number},' in to_json(state).split("}")[0]
    page = render(PageState(state))
    assert f"<dt>trial</dt><dd>{best.number}</dd>" in page
    assert f"<dt>taken by</dt><dd>{told(rule)}</dd>" in page
    assert (
        best_values(state)
        == f"f1 {best.scores[0].metrics['f1']:g}, latency_ms {best.scores[0].metrics['latency_ms']:g}"
    )


def test_a_page_without_a_trial_within_the_bounds_says_which_is_nearest() -> None:
    state = SearchState("s", BOTH, FRONT, rule={"latency_ms": {"max": 8.0}}, wanted=5)
    page = render(PageState(state))
    assert "no trial keeps that; the nearest is trial 4 with latency_ms 9" in page
    assert "<dt>trial</dt>" not in page
    assert best_values(state) == "none within tune.choose"
    assert not any(one.is_chosen for one in rows(state))
