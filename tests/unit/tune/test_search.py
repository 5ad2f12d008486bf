"""Which trial of a search is the best."""

from __future__ import annotations

import math

import pytest

from heliostat.infra.errors import TrainingError
from heliostat.tune.ranking import best_first
from heliostat.tune.search import Search
from heliostat.tune.trials import Objective, Score, Trial


def trial(number: int, loss: float | None, error: str | None = None) -> Trial:
    scores = () if loss is None else (Score(1.0, 1, {"loss": loss}),)
    return Trial(number, {}, 1.0, scores, error)


def numbers(trials: list[Trial], mode: str = "min") -> list[int]:
    return [one.number for one in best_first(trials, (Objective("loss", mode),))]


def ended(*trials: Trial) -> Search:
    return Search(trials, (Objective("loss", "min"),))


NAN, B, INF, NONE, A, FAILED = range(6)


def test_what_is_no_number_and_what_failed_comes_last_wherever_it_was() -> None:
    some = [trial(NAN, math.nan), trial(B, 2.0), trial(INF, -math.inf), trial(NONE, None), trial(A, 1.0)]
    failed = trial(FAILED, 0.0, "loss: not finite")
    for shift in range(6):
        mixed = [*some, failed][shift:] + [*some, failed][:shift]
        assert numbers(mixed)[:2] == [A, B]
        assert numbers(mixed, "max")[:2] == [B, A]


def test_a_failed_trial_first_in_the_list_does_not_make_all_fail() -> None:
    assert ended(trial(0, math.nan, "loss: not finite"), trial(1, 1.0), trial(2, 2.0)).best.number == 1


def test_without_a_usable_trial_the_reason_is_told() -> None:
    failed, empty = trial(0, 1.0, "out of memory"), trial(1, math.nan)
    with pytest.raises(TrainingError, match=r"^all 2 trials failed; the first: out of memory$"):
        assert ended(failed, failed).best
    with pytest.raises(TrainingError, match=r"^none of 2 trials has a finite loss; 1 failed, the first: out of mem"):
        assert ended(empty, failed).best
    with pytest.raises(TrainingError, match=r"^none of 1 trials has a finite loss$"):
        assert ended(empty).best
