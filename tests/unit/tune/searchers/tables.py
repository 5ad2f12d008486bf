"""Tables of trials for tests of searchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heliostat.tune.searchers import build_searcher
from heliostat.tune.searchers.searcher import Searcher
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space
from heliostat.tune.trials import Objective, Score, Trial

LOSS = Objective("loss", "min")
MIXED: dict[str, dict[str, Any]] = {
    "optimizer": {"choice": ["sgd", "adam", None, [1, 2]]},
    "momentum": {"uniform": [0, 1], "when": {"optimizer": "sgd"}},
    "learning_rate": {"loguniform": [1e-5, 1e-1]},
    "batch": {"grid": [16, 32, 64]},
    "dropout": {"quniform": [0, 0.5, 0.1]},
    "layers": {"randint": [2, 12], "step": 2},
}
"""One domain of each kind, and a condition."""


def space(domains: Mapping[str, Mapping[str, Any]]) -> Space:
    return Space({key: Domain.model_validate(domain) for key, domain in domains.items()})


def searcher(name: str, domains: Mapping[str, Mapping[str, Any]], seed: int = 0, **options: Any) -> Searcher:
    return build_searcher(name, space(domains), options.pop("objectives", (LOSS,)), seed, **options)


def finished(number: int, values: Mapping[str, Any], loss: float) -> Trial:
    return Trial(number, values, 1.0, (Score(0.5, 5, {"loss": loss + 0.5}), Score(1.0, 10, {"loss": loss})))


def paused(number: int, values: Mapping[str, Any], share: float, loss: float) -> Trial:
    return Trial(number, values, share, (Score(share, round(10 * share), {"loss": loss}),))


def training(number: int, values: Mapping[str, Any]) -> Trial:
    return Trial(number, values, 1.0)


def failed(number: int, values: Mapping[str, Any]) -> Trial:
    return Trial(number, values, 1.0, error="out of range")


def mixed_loss(values: Mapping[str, Any]) -> float:
    """The best is a learning rate of 1e-3, a large batch, adam, no dropout and 6 layers."""
    from math import log10

    miss = (log10(values["learning_rate"]) + 3) ** 2 + abs(values["layers"] - 6) / 4 + values["dropout"]
    return float(miss + (0 if values["optimizer"] == "adam" else 0.5) + 16 / values["batch"])


def search(one: Searcher, trials: Sequence[Trial], loss: Callable[[Mapping[str, Any]], float], end: int) -> list[Trial]:
    """Goes on with a search, a trial after the other, until `end` trials are there; each third one is paused."""
    table = list(trials)
    while len(table) < end:
        values = one.propose(table, len(table))
        if values is None:
            break
        number = len(table)
        is_paused = number % 3 == 2
        table.append(
            paused(number, values, 0.5, loss(values) + 0.5) if is_paused else finished(number, values, loss(values))
        )
    return table
