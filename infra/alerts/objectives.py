"""How fast an error budget may burn. What endpoints promise stands in their specs (`serve.objectives`), and replicas
report it."""

from __future__ import annotations

from dataclasses import dataclass

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
"""Those that a spec may promise."""


@dataclass(frozen=True)
class BurnRate:
    """An alert on the error budget: fires where errors have come `factor` times as fast as the objective allows, in a
    long window, and still do, in a short one."""

    name: str
    long: str
    short: str
    factor: float
    hold: str


BURN_RATES = (BurnRate("Fast", "1h", "5m", 14.4, "2m"), BurnRate("Slow", "6h", "30m", 6, "5m"))
"""A budget for 30 days is spent in two days, and in five: the windows and factors that page in Google's SRE workbook,
https://sre.google/workbook/alerting-on-slos/."""
LEAST_ERRORS = 3
"""So many errors in the long window are no trend, however few requests there are."""
