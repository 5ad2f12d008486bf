"""Rules that watch storage.

A process begins its counters at zero. Where Prometheus did not see that, though it saw the cluster then, the first
number counts.
"""

from __future__ import annotations

from heliostat.infra.alerts.rule import Alert, Group
from heliostat.infra.metrics import of_storage
from heliostat.infra.metrics.promql import series

ERRORS_MINUTES = 10

_BY = "sum by (job, storage, operation)"
_ERRORS = series(of_storage.ERRORS)

ERRORS = Alert(
    "HeliostatStorageErrors",
    f"{_BY} (increase({_ERRORS}[{ERRORS_MINUTES}m])) > 0"
    f" or {_BY} ({_ERRORS} unless {_ERRORS} offset {ERRORS_MINUTES}m) > 0"
    f" and on (job) count by (job) (up offset {ERRORS_MINUTES}m)",
    "0s",
    "warning",
    "{{ $labels.operation }} on {{ $labels.storage }} storage failed in {{ $labels.job }}, after all retries",
)

GROUP = Group("heliostat-storage", (ERRORS,))
