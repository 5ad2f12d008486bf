"""Rules that watch storage, and the runs in it.

A process begins its counters at zero. Where Prometheus did not see that, though it saw the cluster then, the first
number counts.
"""

from __future__ import annotations

from heliostat.infra.alerts.rule import Alert, Group
from heliostat.infra.metrics import of_storage
from heliostat.infra.metrics.promql import series

ERRORS_MINUTES = 10

LATE_INTERVALS = 3
LATE_SECONDS = 600
RESTARTS = 3

_BY = "sum by (job, storage, operation)"
_ERRORS = series(of_storage.ERRORS)

_CHECKPOINT = f"max by (model, run) ({series(of_storage.RUN_CHECKPOINT)})"
_INTERVAL = f"max by (model, run) ({series(of_storage.RUN_INTERVAL)})"
_DRIVERS = f"max by (model, run) ({series(of_storage.RUN_DRIVERS)})"
_EARLIER_DRIVERS = f"max by (model, run) ({series(of_storage.RUN_DRIVERS)} offset 1h)"
_RUNNING = series(of_storage.RUN_STATE, 'state="running"')
_FINISHED = series(of_storage.RUN_STATE, 'state="finished"')

ERRORS = Alert(
    "HeliostatStorageErrors",
    f"{_BY} (increase({_ERRORS}[{ERRORS_MINUTES}m])) > 0"
    f" or {_BY} ({_ERRORS} unless {_ERRORS} offset {ERRORS_MINUTES}m) > 0"
    f" and on (job) count by (job) (up offset {ERRORS_MINUTES}m)",
    "0s",
    "warning",
    "{{ $labels.operation }} on {{ $labels.storage }} storage failed in {{ $labels.job }}, after all retries",
)

UNREADABLE = Alert(
    "HeliostatStorageUnreadable",
    f"min by (source) ({series(of_storage.UP)}) == 0",
    "5m",
    "critical",
    "The {{ $labels.source }} cannot be looked at, or takes too long",
)
CHECKPOINT_OLD = Alert(
    "HeliostatCheckpointOld",
    f"(time() - {_CHECKPOINT} > {LATE_INTERVALS} * {_INTERVAL} and time() - {_CHECKPOINT} > {LATE_SECONDS})"
    f" and on (model, run) {_RUNNING}",
    "5m",
    "warning",
    "The newest checkpoint of run {{ $labels.run }} of {{ $labels.model }} is {{ $value | humanizeDuration }} old,"
    f" over {LATE_INTERVALS} times what lay between the two before",
)
RESTARTING = Alert(
    "HeliostatRunKeepsRestarting",
    f"{_DRIVERS} - {_EARLIER_DRIVERS} >= {RESTARTS} unless on (model, run) {_FINISHED}",
    "0s",
    "warning",
    "Run {{ $labels.run }} of {{ $labels.model }} was started {{ $value }} times in the last hour",
)

GROUP = Group("heliostat-storage", (ERRORS, UNREADABLE, CHECKPOINT_OLD, RESTARTING))
