"""Rules that watch searches."""

from __future__ import annotations

from heliostat.infra.alerts.rule import Alert, Group
from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.promql import series

FAILED_TRIALS = 2
"""One may have drawn values that do not work."""
KEPT_MINUTES = 10
"""A search of which all trials fail is soon over, and its gauges go with its process."""


def _trials(state: str) -> str:
    found = series(of_tuning.TRIALS, f'state=~"{state}"')
    return f"sum by (model, search) (max_over_time({found}[{KEPT_MINUTES}m]))"


FAILING = Alert(
    "HeliostatTrialsFail",
    f"{_trials('failed')} >= {FAILED_TRIALS} unless {_trials('finished|stopped|paused')} > 0",
    "0s",
    "warning",
    "The first {{ $value }} trials of search {{ $labels.search }} of {{ $labels.model }} failed, and no other ended",
)

GROUP = Group("heliostat-tuning", (FAILING,))
