"""Trials of a search, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from heliostat.tune.state import SearchState
from heliostat.tune.trials import Objective, Score, Trial

ACCURACY, LATENCY = Objective("accuracy", "max"), Objective("latency", "min")


def trial(number: int, accuracies: Sequence[float], values: Mapping[str, Any] | None = None, **more: Any) -> Trial:
    """A trial with a validation at each quarter, of ten steps and 1.5 seconds each; it was told to train no further."""
    scores = tuple(
        Score(quarter / 4, 10 * quarter, {"accuracy": accuracy, "loss": 1 - accuracy}, 1.5)
        for quarter, accuracy in enumerate(accuracies, start=1)
    )
    given = {"until": len(accuracies) / 4, "scores": scores, **more}
    return Trial(number, values or {"learning_rate": 10.0 ** -(number % 5 + 1), "schedule": "cosine"}, **given)


def state(trials: Sequence[Trial], **more: Any) -> SearchState:
    """A search for accuracy over these trials."""
    return SearchState(**{"name": "sentiment", "objectives": (ACCURACY,), "trials": trials, "wanted": 8, **more})


def full(number: int, accuracy: float, **more: Any) -> Trial:
    """A trial that was trained to its end, with its best validation there."""
    return trial(number, [accuracy / 4, accuracy / 3, accuracy / 2, accuracy], **more)


def again(number: int, accuracy: float, of: Trial, seed: int, **more: Any) -> Trial:
    """A run of `of`'s configuration on a new seed, after the search."""
    return full(number, accuracy, values={**of.values, "train.seed": seed}, confirms=of.number, **more)


SEARCHED = [full(0, 0.9), full(1, 0.89), full(2, 0.7)]
CONFIRMED = [
    *SEARCHED,
    *(again(3 + place, accuracy, SEARCHED[0], 1000 + place) for place, accuracy in enumerate((0.80, 0.82, 0.81))),
    *(again(6 + place, accuracy, SEARCHED[1], 1000 + place) for place, accuracy in enumerate((0.84, 0.85, 0.83))),
]
"""The second best of a search is the best on three new seeds."""
