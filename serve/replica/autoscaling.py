"""Autoscaling of text generation by time to first token.

Ray Serve calls the policy, bounds its result by `serve.replicas` and applies the delays of the spec.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

FIRST_TOKEN_SECONDS = "first_token_seconds"
FRESH_SECONDS = 15.0
"""Older reports of a replica are ignored."""
MOST_AT_ONCE = 2.0
"""Limits the growth per decision to double: waiting times grow without bound when requests queue."""
ROOM = 0.5
"""Replicas are removed only if waiting times are below this share of the target, to avoid oscillation."""


class FirstTokenPolicy:
    """As many replicas as ongoing requests need, and more while first tokens take longer than `target_seconds`."""

    def __init__(self, target_seconds: float) -> None:
        self.target_seconds = target_seconds

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """The number of replicas, and an empty policy state."""
        assert context.config is not None
        wanted = context.total_num_requests / context.config.get_target_ongoing_requests()
        waits = self.fresh_waits(context)
        if not waits:
            # There are requests but no first token lately, so the waiting time is unknown: do not scale down.
            return max(wanted, context.target_num_replicas if context.total_num_requests else 0), {}
        load = fmean(waits) / self.target_seconds
        if load > 1:
            wanted = max(wanted, context.current_num_replicas * min(load, MOST_AT_ONCE))
        elif load > ROOM:
            wanted = max(wanted, context.target_num_replicas)
        return wanted, {}

    def fresh_waits(self, context: AutoscalingContext) -> list[float]:
        """Recent mean times to first token in seconds, as reported by the replicas."""
        said = (context.raw_metrics or {}).get(FIRST_TOKEN_SECONDS, {}).values()
        since = (context.current_time or 0) - FRESH_SECONDS
        return [point.value for points in said for point in points if point.timestamp >= since]
