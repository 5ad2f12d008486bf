"""How many replicas a generating endpoint gets, by how long its clients wait for their first token.

Ray Serve calls it with what it knows, bounds the result by `serve.replicas` and holds it for the delays of the spec.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

FIRST_TOKEN_SECONDS = "first_token_seconds"
FRESH_SECONDS = 15.0
"""What a replica said longer ago than this is not known any more."""
MOST_AT_ONCE = 2.0
"""Waits grow without end where requests queue; replicas at most double by one decision."""
ROOM = 0.5
"""Replicas are taken away only where waits are below this share of the target, so that none come and go in turns."""


class FirstTokenPolicy:
    """As many replicas as ongoing requests ask for, and more while first tokens take longer than `target_seconds`."""

    def __init__(self, target_seconds: float) -> None:
        self.target_seconds = target_seconds

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """The number of replicas, and nothing to remember."""
        assert context.config is not None
        wanted = context.total_num_requests / context.config.get_target_ongoing_requests()
        waits = self.fresh_waits(context)
        if not waits:
            # Requests without a first token in all this time: nobody knows how long they wait.
            return max(wanted, context.target_num_replicas if context.total_num_requests else 0), {}
        load = fmean(waits) / self.target_seconds
        if load > 1:
            wanted = max(wanted, context.current_num_replicas * min(load, MOST_AT_ONCE))
        elif load > ROOM:
            wanted = max(wanted, context.target_num_replicas)
        return wanted, {}

    def fresh_waits(self, context: AutoscalingContext) -> list[float]:
        """Mean seconds to the first token, as each replica said them lately."""
        said = (context.raw_metrics or {}).get(FIRST_TOKEN_SECONDS, {}).values()
        since = (context.current_time or 0) - FRESH_SECONDS
        return [point.value for points in said for point in points if point.timestamp >= since]
