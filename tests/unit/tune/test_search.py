"""Which trial of a search is the best."""

from __future__ import annotations

import math

import pytest

from heliostat.infra.errors import TrainingError
from heliostat.tune.search import Search, Trial, best_first


def trial(name: str, loss: float | None, error: str | None = None) -> Trial:
    metrics = {} if loss is None else {"loss": loss}
    outcome = "failed" if error else "finished"
    return Trial(name, {}, metrics, 100, 1.0, outcome, error)


def names(trials: list[Trial], mode: str = "min") -> list[str]:
    return [one.id for one in best_first(trials, "loss", mode)]


def test_what_is_no_number_and_what_failed_comes_last_wherever_it_was() -> None:
    some = [trial("nan", math.nan), trial("b", 2.0), trial("inf", -math.inf), trial("none", None), trial("a", 1.0)]
    failed = trial("failed", 0.0, "loss: not finite")
    for shift in range(6):
        mixed = [*some, failed][shift:] + [*some, failed][:shift]
        assert names(mixed)[:2] == ["a", "b"]
        assert names(mixed, "max")[:2] == ["b", "a"]


def test_a_failed_trial_first_in_the_list_does_not_make_all_fail() -> None:
    trials = [trial("failed", math.nan, "loss: not finite"), trial("a", 1.0), trial("b", 2.0)]
    assert Search(best_first(trials, "loss", "min"), "loss").best.id == "a"


def test_without_a_usable_trial_the_reason_is_told() -> None:
    failed, empty = trial("x", 1.0, "out of memory"), trial("y", math.nan)
    with pytest.raises(TrainingError, match=r"^all 2 trials failed; the first: out of memory$"):
        assert Search([failed, failed], "loss").best
    with pytest.raises(TrainingError, match=r"^none of 2 trials has a finite loss; 1 failed, the first: out of mem"):
        assert Search([empty, failed], "loss").best
    with pytest.raises(TrainingError, match=r"^none of 1 trials has a finite loss$"):
        assert Search([empty], "loss").best
