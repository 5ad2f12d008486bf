"""When a search has spent enough, and whether it can get anywhere with that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heliostat.infra import log
from heliostat.tune.config import BudgetConfig
from heliostat.tune.state import SearchState

Budget = Callable[[Mapping[str, float]], str | None]
"""Takes what has been spent; says which budget is used up, None if none is."""
_log = log.get(__name__)


def budget_of(config: BudgetConfig) -> Budget:
    """Says which key of `tune.budget` is used up; None while none is."""
    limits = [
        ("hours", config.hours, "seconds", 3600),
        ("worker_hours", config.worker_hours, "worker_seconds", 3600),
        ("usd", config.usd, "usd", 1),
    ]

    def used_up(spent: Mapping[str, float]) -> str | None:
        for key, limit, name, unit in limits:
            if limit is not None and spent[name] >= limit * unit:
                return f"tune.budget.{key}: {limit:g} used up"
        return None

    return used_up


class BudgetWatch:
    """Warns once if one trial in full would take more than a budget: how long it takes its first validation tells."""

    def __init__(self, config: BudgetConfig, workers: int) -> None:
        """`workers` are those of a trial."""
        self._config, self._workers, self._is_judged = config, workers, False

    def update(self, state: SearchState) -> None:
        """Judges the budget as soon as a trial has been validated."""
        trial = next((one for one in state.trials if one.share), None)
        if trial is None or self._is_judged:
            return
        self._is_judged = True
        hours = sum(score.seconds for score in trial.scores) / trial.share / 3600
        if key := too_small(self._config, hours, hours * self._workers, hours * (state.gang_hour_price or 0.0)):
            _log.warning("%s, by what trial %d took so far: no trial may be finished", key, trial.number)


def too_small(config: BudgetConfig, hours: float, worker_hours: float, usd: float) -> str:
    """The budget that is less than what a trial takes, with both numbers; empty if all suffice."""
    for key, taken in (("hours", hours), ("worker_hours", worker_hours), ("usd", usd)):
        limit = getattr(config, key)
        if limit is not None and limit < taken:
            return f"tune.budget.{key}: {limit:g} given, and a trial in full takes about {taken:.2g}"
    return ""
