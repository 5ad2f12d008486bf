"""When a search has spent enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heliostat.tune.config import BudgetConfig

Budget = Callable[[Mapping[str, float]], str | None]
"""Takes what has been spent; says which budget is used up, None if none is."""


def budget_of(config: BudgetConfig) -> Budget:
    """Says which key of `tune.budget` is used up; None while none is."""
    limits = {"hours": ("seconds", config.hours), "worker_hours": ("worker_seconds", config.worker_hours)}

    def used_up(spent: Mapping[str, float]) -> str | None:
        for key, (name, limit) in limits.items():
            if limit is not None and spent[name] >= 3600 * limit:
                return f"tune.budget.{key}: {limit:g} used up"
        return None

    return used_up
