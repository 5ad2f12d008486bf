"""A row says all there is to say of a trial."""

from __future__ import annotations

import json
import math

import pytest

from heliostat.tune.reports.files import to_json
from heliostat.tune.reports.search_report import origin
from heliostat.tune.reports.table import STATES, rows
from heliostat.tune.trials import Origin, Score, Stretch
from tests.trials import ACCURACY, CONFIRMED, LATENCY, state, trial

FULL, PAUSED = trial(0, [0.5, 0.9, 0.7, 0.8]), trial(1, [0.95])


def test_each_state_is_told() -> None:
    trials = [
        FULL,
        PAUSED,
        trial(2, [0.5], until=0.5),
        trial(3, [], until=0.5),
        trial(4, [0.3], stopped="by a user"),
        trial(5, [], until=0.5, error="no memory"),
    ]
    found = {row.number: row.state for row in rows(state(trials, running=[2]))}
    assert found == {0: "finished", 1: "paused", 2: "training", 3: "waiting", 4: "stopped", 5: "failed"}
    assert set(found.values()) == set(STATES)


def test_rows_are_best_first_and_a_higher_share_goes_before_a_higher_value() -> None:
    trials = [trial(0, [], until=1, error="x"), PAUSED, trial(2, [0.5, 0.6]), trial(3, [0.5, 0.7])]
    assert [row.number for row in rows(state(trials))] == [3, 2, 1, 0]


def test_the_best_metrics_are_those_of_the_best_validation_and_the_last_those_of_the_last() -> None:
    (row,) = rows(state([FULL]))
    assert row.best == {"accuracy": 0.9, "loss": pytest.approx(0.1)}
    assert row.last == {"accuracy": 0.8, "loss": pytest.approx(0.2)}
    assert (row.share, row.steps, row.seconds, row.progress) == (1, 40, 6.0, "100 %")


def test_several_objectives_are_told_as_one_validation_had_them() -> None:
    scores = (
        Score(0.5, 5, {"accuracy": 0.5, "latency": 7.0, "loss": 3.0}),
        Score(1, 10, {"accuracy": 0.6, "latency": 9.0, "loss": 2.0}),
    )
    (row,) = rows(state([trial(0, [], until=1, scores=scores)], objectives=(ACCURACY, LATENCY)))
    assert row.best == scores[1].metrics


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    (row,) = rows(state([trial(0, [0.5, math.nan], error="accuracy is no number")]))
    assert row.best["accuracy"] == 0.5
    assert math.isnan(row.last["accuracy"])
    (none,) = rows(state([trial(0, [math.nan], error="accuracy is no number")]))
    assert none.best == {}


def test_the_steps_of_a_clone_are_its_own() -> None:
    clone = trial(1, [], until=1, origin=Origin(0, 0.5), scores=(Score(0.75, 30, {}), Score(1, 40, {})))
    assert {row.number: row.steps for row in rows(state([FULL, clone]))} == {0: 40, 1: 20}


def test_a_trial_that_took_over_weights_on_its_way_has_trained_all_its_steps() -> None:
    exploiting = trial(1, [0.1, 0.2, 0.8], origin=Origin(0, 0.5))
    assert {row.number: row.steps for row in rows(state([FULL, exploiting]))} == {0: 40, 1: 30}


def test_cost_and_steps_that_were_trained_again_are_told_where_they_are_known() -> None:
    found = rows(state([FULL, PAUSED], gang_hour_price=1200.0, repeated_steps={0: 7}))
    assert [(row.cost, row.repeated_steps) for row in found] == [(2.0, 7), (0.5, 0)]
    assert rows(state([FULL]))[0].cost is None


def test_a_reason_is_one_line_without_control_characters() -> None:
    (row,) = rows(state([trial(0, [], until=1, error="CUDA [/x]\n\terror \x1b[31m\u2028end")]))
    assert row.reason == "CUDA [/x] error [31m end"


def test_progress_is_never_rounded_up_to_the_end() -> None:
    (row,) = rows(state([trial(0, [], until=1, scores=(Score(0.999, 999, {}),))]))
    assert row.progress == "99 %"


def test_a_search_without_trials_has_no_rows() -> None:
    assert rows(state([])) == []


def test_a_run_on_another_seed_says_whose_configuration_it_is_and_the_first_one_how_it_stands() -> None:
    found = {row.number: row for row in rows(state(CONFIRMED))}
    assert (found[7].configuration, found[7].role, found[7].seed) == (1, "confirmation", 1001)
    assert (found[7].whose, found[7].standing) == ("confirms trial 1 on seed 1001", None)
    assert (found[1].configuration, found[1].role, found[1].seed, found[1].whose) == (1, "first", None, "")
    assert found[1].standing
    assert (found[1].standing.over_seeds.runs, found[2].standing) == (3, None)
    twice = trial(1, [0.5], {"train.seed": 4}, repeats=0)
    assert rows(state([trial(0, [0.5]), twice]))[1].whose == "repeats trial 0 on seed 4"


def test_a_trial_that_changed_its_values_shows_what_it_has_now_and_what_led_to_its_weights() -> None:
    donor = trial(0, [0.1, 0.2], {"rate": 1.0})
    taking = trial(1, [0.0, 0.2, 0.3], {"rate": 2.0}, origin=Origin(0, 0.5), past=(Stretch(0.5, {"rate": 9.0}),))
    by_number = {row.number: row for row in rows(state([donor, taking]))}
    assert by_number[1].values == {"rate": 2.0}
    assert by_number[1].past == [(0.5, {"rate": 1.0})]
    assert by_number[0].past == ()
    (told,) = (one for one in json.loads(to_json(state([donor, taking]))) if one["trial"] == 1)
    assert told["past"] == [{"until": 0.5, "values": {"rate": 1.0}}]
    assert origin(by_number[1]) == "trial 0 at 50%; until 50% rate 1"
