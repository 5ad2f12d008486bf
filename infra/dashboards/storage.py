"""Panels of storage: what processes ask of it."""

from __future__ import annotations

from heliostat.infra.dashboards.grafana import Dashboard, Panel, Query
from heliostat.infra.dashboards.promql import rate
from heliostat.infra.metrics import of_storage

_BY = "storage, operation"
_LEGEND = "{{storage}} {{operation}}"

OPERATIONS = Panel(
    "Operations on storage",
    "What workers and replicas ask of storage each second: to read, write, look for, delete and list objects.",
    "ops",
    (Query(rate(of_storage.REQUESTS, _BY), _LEGEND),),
)
SECONDS = Panel(
    "Seconds of an operation",
    "Mean seconds of an operation on storage, retries included; large objects take longer.",
    "s",
    (Query(f"{rate(of_storage.SECONDS, _BY)} / {rate(of_storage.REQUESTS, _BY)} >= 0", _LEGEND),),
)
BYTES = Panel(
    "Bytes moved",
    "Bytes of objects that workers and replicas read and write each second.",
    "Bps",
    (Query(rate(of_storage.BYTES, _BY, 'operation=~"read|write"'), _LEGEND),),
)
FAILED = Panel(
    "Failed operations",
    "Operations each second that failed after all retries; a key that is missing, or there already, is no failure.",
    "ops",
    (Query(rate(of_storage.ERRORS, _BY), _LEGEND),),
    width=12,
)
RETRIES = Panel(
    "Retries",
    "Requests to a bucket each second that were sent again: it is overloaded, or the network bad.",
    "reqps",
    (Query(rate(of_storage.RETRIES, _BY), _LEGEND),),
    width=12,
)

STORAGE = Dashboard(
    "heliostat-storage",
    "Heliostat: storage",
    "The storage that runs and endpoints share.",
    (),
    (("Requests", (OPERATIONS, SECONDS, BYTES, FAILED, RETRIES)),),
)
