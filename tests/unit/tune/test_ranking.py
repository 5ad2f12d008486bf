"""Which trial is the best, whatever the order in which results came."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from heliostat.tune.ranking import best_first, outcome, pareto_front
from heliostat.tune.trials import Objective, Origin, Score, Trial

LOSS = (Objective("loss", "min"),)
ACCURACY = (Objective("accuracy", "max"),)
BOTH = (Objective("loss", "min"), Objective("seconds", "min"))


def trial(
    number: int, *losses: float, until: float | None = None, error: str | None = None, step: float = 0.25
) -> Trial:
    scores = tuple(Score(step * (k + 1), k, {"loss": loss}) for k, loss in enumerate(losses))
    return Trial(number, {}, until or step * len(losses), scores, error)


OVERFITTING = trial(0, 0.5, 0.2, 0.6, 0.9)
STEADY = trial(1, 0.8, 0.6, 0.5, 0.3)
EARLY_HIGH_SCORE = trial(2, 0.01)
DIVERGED = trial(3, 0.001, math.nan, until=1.0, error="loss: not finite")
UNMARKED = trial(4, 0.002, math.nan, until=1.0)
HALF = trial(5, 0.4, 0.1)
UNTRAINED = trial(6, until=0.25)


def numbers(trials: list[Trial]) -> list[int]:
    return [one.number for one in trials]


def test_the_ranking_is_the_same_in_every_order_of_arrival() -> None:
    some = [OVERFITTING, STEADY, EARLY_HIGH_SCORE, DIVERGED, UNMARKED, HALF]
    found = {tuple(numbers(best_first(order, LOSS))) for order in itertools.permutations(some)}
    assert found == {(0, 1, 5, 2, 3, 4)}


def test_a_validation_of_weights_that_a_trial_gave_up_is_not_its_best() -> None:
    taking = replace(trial(0, 0.1, 0.9, 0.6, 0.5), origin=Origin(7, 0.5))
    assert numbers(best_first([taking, STEADY], LOSS)) == [1, 0]
    assert LOSS[0].best(taking) == 0.5
    assert [score.share for score in replace(taking, scores=taking.scores[:2]).lasting] == [0.5]


def test_what_was_never_validated_comes_before_what_failed() -> None:
    assert numbers(best_first([DIVERGED, UNTRAINED, EARLY_HIGH_SCORE], LOSS)) == [2, 6, 3]


def test_equal_values_are_ranked_by_number_though_shares_are_rounded() -> None:
    first = Trial(8, {}, 0.3, (Score(0.3, 1, {"loss": 0.5}),))
    second = Trial(9, {}, 0.3, (Score(0.1 + 0.2, 1, {"loss": 0.5}),))
    assert first.share != second.share
    assert numbers(best_first([second, first], LOSS)) == [8, 9]


def test_more_is_better_where_the_objective_says_so() -> None:
    some = [Trial(k, {}, 1.0, (Score(1.0, 1, {"accuracy": value}),)) for k, value in enumerate((0.5, 0.9, math.inf))]
    assert numbers(best_first(some, ACCURACY)) == [1, 0, 2]


def both(number: int, *values: tuple[float, float], share: float = 1.0) -> Trial:
    shares = [share * (k + 1) / len(values) for k in range(len(values))]
    scores = (Score(at, 1, {"loss": loss, "seconds": s}) for at, (loss, s) in zip(shares, values, strict=True))
    return Trial(number, {}, share, tuple(scores))


def test_the_front_is_what_nothing_trained_as_far_beats_in_all_objectives() -> None:
    front = [both(0, (0.1, 9.0)), both(1, (0.5, 1.0)), both(2, (0.3, 3.0))]
    behind = [both(3, (0.3, 4.0)), both(4, (0.01, 0.1), share=0.5), both(5, (math.nan, 0.1))]
    for order in itertools.permutations([*front, *behind]):
        assert numbers(pareto_front(order, BOTH)) == [0, 1, 2]
    assert numbers(best_first([*behind, *front], BOTH)) == [0, 1, 2, 3, 4, 5]


def test_a_model_counts_with_the_values_that_it_has_at_once() -> None:
    """The fast weights of one validation and the good ones of another are no model that is both."""
    never_both = both(0, (0.9, 1.0), (0.2, 9.0))
    balanced = both(1, (0.3, 8.0), (0.2, 8.0))
    assert numbers(pareto_front([never_both, balanced], BOTH)) == [1]


def test_no_trials_have_no_front() -> None:
    assert pareto_front([], BOTH) == []
    assert best_first([], LOSS) == []


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (Trial(0, {}, 0.0), "waiting"),
        (trial(0, until=0.25), "training"),
        (trial(0, 0.5, until=0.5), "training"),
        (trial(0, 0.5), "paused"),
        (OVERFITTING, "finished"),
        (Trial(0, {}, 0.25, (Score(0.25, 1, {}),), stopped="by hand"), "stopped"),
        (Trial(0, {}, 1.0, (Score(1.0, 1, {}),), stopped="the search is over"), "finished"),
        (DIVERGED, "failed"),
    ],
)
def test_what_became_of_a_trial(what: Trial, expected: str) -> None:
    assert outcome(what) == expected


def test_a_trial_that_no_gang_has_waits() -> None:
    assert outcome(trial(7, until=0.25), on_gangs=[3]) == "waiting"
    assert outcome(trial(3, until=0.25), on_gangs=[3]) == "training"
