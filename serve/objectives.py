"""What an endpoint promises: alerts and dashboards measure it by that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heliostat.infra.config.strict import StrictModel

Quantile = Literal["p50", "p90", "p95", "p99"]
Seconds = Annotated[float, Field(gt=0)]


class Objectives(StrictModel):
    """Promises of one endpoint; without times, no alert tells of slow answers."""

    availability: Annotated[float, Field(ge=0.5, lt=1)] = 0.999
    """Share of requests that are not answered with 5xx; those that clients gave up do not count."""
    latency_seconds: dict[Quantile, Seconds] = {}
    """`{p95: 0.3}`: 95% of the answers take at most 0.3 s, up to their last byte."""
    first_token_seconds: dict[Quantile, Seconds] = {}
    """`causal-lm`: the same of the time until the first token."""
