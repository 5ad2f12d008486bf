"""What Optuna is told of each trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from heliostat.tune.searchers.searcher import Setup
from heliostat.tune.searchers.study import STEPS, Studies
from heliostat.tune.trials import Objective, Score, Trial
from tests.unit.tune.searchers.tables import LOSS, MIXED, failed, finished, paused, space, training

VALUES = {"optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.01, "batch": 32, "dropout": 0.3, "layers": 4}
ADAM = {"optimizer": [1, 2], "learning_rate": 0.01, "batch": 32, "dropout": 0.3, "layers": 4}


def studied(trials: Sequence[Trial], objectives: Sequence[Objective] = (LOSS,), **options: Any) -> optuna.Study:
    made = Studies(Setup(space(MIXED), objectives, 0), **{"at_one_share": False, "takes_parts": True, **options})
    return made.of(trials, RandomSampler())


def told(trial: Trial, objectives: Sequence[Objective] = (LOSS,), **options: Any) -> FrozenTrial:
    (one,) = studied([trial], objectives, **options).trials
    one._validate()  # as Optuna's own functions do with a trial that they are given
    return one


def test_a_finished_trial_is_complete_with_its_best_value_and_its_parameters() -> None:
    scores = (Score(0.5, 5, {"loss": 0.2}), Score(1.0, 10, {"loss": 0.4}))
    one = told(Trial(0, VALUES, 1.0, scores))
    assert (one.state, one.value) == (TrialState.COMPLETE, 0.2)
    assert one.params == {**VALUES, "optimizer": 0, "batch": 1, "dropout": 3, "layers": 1}  # positions
    assert told(finished(0, ADAM, 0.1)).params == {"optimizer": 3} | {
        key: value for key, value in one.params.items() if key not in ("optimizer", "momentum")
    }


@pytest.mark.parametrize("stopped", [None, "by a user"])
def test_a_paused_or_stopped_trial_is_stopped_where_it_stands_with_the_best_until_each_validation(
    stopped: str | None,
) -> None:
    scores = (Score(0.25, 2, {"loss": math.nan}), Score(0.5, 5, {"loss": 0.2}), Score(0.75, 7, {"loss": 0.4}))
    one = told(Trial(0, VALUES, 0.75, scores, stopped=stopped))
    assert (one.state, one.values) == (TrialState.PRUNED, None)
    assert one.intermediate_values == {STEPS // 2: 0.2, 3 * STEPS // 4: 0.2}


def test_a_promoted_trial_that_trains_again_is_known_by_what_it_has_shown() -> None:
    one = told(Trial(0, VALUES, 1.0, (Score(0.5, 5, {"loss": 0.2}),)))
    assert (one.state, one.intermediate_values) == (TrialState.PRUNED, {STEPS // 2: 0.2})


def test_a_trial_that_has_shown_nothing_is_running_while_it_trains_and_unknown_when_it_was_stopped() -> None:
    assert told(training(0, VALUES)).state is TrialState.RUNNING
    assert studied([Trial(0, VALUES, 1.0, stopped="by a user")]).trials == []


def test_a_failed_trial_and_one_without_a_finite_value_have_failed() -> None:
    lost = Trial(0, VALUES, 1.0, (Score(0.5, 5, {"loss": 0.1}),), error="a value that the model refuses")
    infinite = Trial(0, VALUES, 1.0, (Score(0.5, 5, {"loss": math.inf}), Score(1.0, 10, {"loss": math.nan})))
    other = Trial(0, VALUES, 1.0, (Score(1.0, 10, {"accuracy": 1.0}),))
    assert [told(one).state for one in (failed(0, VALUES), lost, infinite, other)] == [TrialState.FAIL] * 4
    assert told(lost).values is None


def test_directions_are_those_of_the_objectives() -> None:
    objectives = (LOSS, Objective("accuracy", "max"))
    study = studied([], objectives)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    one = told(Trial(0, VALUES, 1.0, (Score(1.0, 10, {"loss": 0.5, "accuracy": 0.9}),)), objectives)
    assert one.values == [0.5, 0.9]
    half = told(Trial(0, VALUES, 1.0, (Score(1.0, 10, {"loss": 0.5}),)), objectives)
    assert half.state is TrialState.FAIL


def test_of_another_space_a_part_is_told_to_samplers_that_take_it() -> None:
    old = finished(0, {"learning_rate": 0.01, "batch": 32, "gone": 5}, 0.5)
    assert told(old).params == {"learning_rate": 0.01, "batch": 1}
    assert studied([old], takes_parts=False).trials == []
    outside: list[dict[str, Any]] = [{**VALUES, "learning_rate": 1.0}, {**VALUES, "optimizer": "lion"}, {"gone": 1}]
    assert studied([finished(0, values, 0.5) for values in outside]).trials == []


def test_for_samplers_that_know_complete_trials_only_the_longest_share_that_enough_have_reached_counts() -> None:
    trials = [finished(0, VALUES, 0.1), *(paused(number, VALUES, 0.5, 0.3) for number in range(1, 10))]
    quarter = paused(10, VALUES, 0.25, 0.3)
    trials += [quarter, training(11, VALUES), Trial(12, VALUES, 0.5, quarter.scores)]
    study = studied(trials, at_one_share=True)
    assert [one.state.name[0] for one in study.trials] == ["C"] * 10 + ["P", "R", "R"]
    assert study.trials[0].value == 0.6  # as it was at half
    more = [finished(number, VALUES, 0.1) for number in range(10)]
    assert [one.value for one in studied(more, at_one_share=True).trials] == [0.1] * 10


def test_a_trial_of_which_more_is_known_is_told_anew() -> None:
    made = Studies(Setup(space(MIXED), (LOSS,), 0), at_one_share=False, takes_parts=True)
    states = [
        made.of([trial], RandomSampler()).trials[0].state.name
        for trial in (training(0, VALUES), paused(0, VALUES, 0.5, 1.0), finished(0, VALUES, 0.5))
    ]
    assert states == ["RUNNING", "PRUNED", "COMPLETE"]


def test_what_is_drawn_does_not_change_what_the_next_study_is_told() -> None:
    made, trials = Studies(Setup(space(MIXED), (LOSS,), 0), False, True), [finished(0, VALUES, 0.5)]
    first = made.of(trials, RandomSampler())
    first.ask(made.distributions)
    assert len(first.trials) == 2
    assert [one.number for one in made.of(trials, RandomSampler()).trials] == [0]
