"""What a search has spent, in words."""

from __future__ import annotations

from heliostat.tune.price import usd
from heliostat.tune.state import SearchState

NOTEWORTHY = 0.01
"""Of the worker-hours; less idle time than that is not told."""


def worker_hours(state: SearchState) -> str:
    """The hours of workers, and what share of them waited."""
    return f"{state.worker_hours:,.2f} worker-hours{_idle(state)}"


def hours(state: SearchState) -> str:
    """As `worker_hours`, where that word stands beside it."""
    return f"{state.worker_hours:,.2f}{_idle(state)}"


def _idle(state: SearchState) -> str:
    return f" ({idle_share(state):.0%} idle)" if idle_share(state) >= NOTEWORTHY else ""


def idle_share(state: SearchState) -> float:
    """The share of the worker-hours in which workers had no work, in [0, 1]."""
    return state.idle_worker_hours / state.worker_hours if state.worker_hours else 0.0


def summary(state: SearchState) -> str:
    """What a search has spent, with the reason that workers waited for; empty if it had none."""
    if not state.worker_hours:
        return ""
    is_long = state.lag is not None and idle_share(state) >= NOTEWORTHY
    why = f" (tune.lag: {state.lag}; none is fastest)" if is_long else ""
    cost = "" if state.cost is None else f", {usd(state.cost)}"
    return f"workers idle {idle_share(state):.0%} of {state.worker_hours:,.2f} worker-hours{why}{cost}"
