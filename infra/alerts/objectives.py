"""What endpoints promise, and how fast an error budget may burn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Objectives:
    """Promises of one endpoint; those of each endpoint are these."""

    availability: float = 0.999
    """Share of requests, but for those that clients gave up, that are not answered with 5xx."""
    latency_p95_seconds: float = 1.0
    """95 % of the answers that are sent whole are faster."""
    first_token_p95_seconds: float = 2.0
    """95 % of the answers that are sent token by token begin sooner."""


@dataclass(frozen=True)
class BurnRate:
    """An alert on the error budget: fires where errors have come `factor` times as fast as the objective allows, in a
    long window, and still do, in a short one."""

    name: str
    long: str
    short: str
    factor: float
    hold: str


OBJECTIVES = Objectives()
BURN_RATES = (BurnRate("Fast", "1h", "5m", 14.4, "2m"), BurnRate("Slow", "6h", "30m", 6, "5m"))
"""A budget for 30 days is spent in two days, and in five: the windows and factors that page in Google's SRE workbook,
https://sre.google/workbook/alerting-on-slos/."""
LEAST_ERRORS = 3
"""So many errors in the long window are no trend, however few requests there are."""
