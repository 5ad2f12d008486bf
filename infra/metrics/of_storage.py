"""The part of the catalogue about storage: what processes ask of it."""

from __future__ import annotations

from heliostat.infra.metrics.metric import Label, Metric

_REQUEST = ("storage", "operation")
REQUESTS = Metric(
    "heliostat_storage_requests_total",
    "counter",
    "requests",
    "Operations on storage that ended, well or not.",
    "How much a process asks of storage.",
    _REQUEST,
)
SECONDS = Metric(
    "heliostat_storage_seconds_total",
    "counter",
    "seconds",
    "Seconds that operations on storage took, retries included.",
    "Whether storage is slow: their mean, by the number of operations.",
    _REQUEST,
)
BYTES = Metric(
    "heliostat_storage_bytes_total",
    "counter",
    "bytes",
    "Bytes of objects that were read or written whole.",
    "Throughput of storage.",
    _REQUEST,
)
RETRIES = Metric(
    "heliostat_storage_retries_total",
    "counter",
    "requests",
    "Requests to a bucket that were sent again, after a fault or a refusal that may pass.",
    "Whether a bucket is overloaded, or the network bad, before operations fail.",
    _REQUEST,
)
ERRORS = Metric(
    "heliostat_storage_errors_total",
    "counter",
    "requests",
    "Operations on storage that failed after all retries; a key that is missing, or there already, is no failure.",
    "Whether checkpoints, models and keys arrive.",
    _REQUEST,
)

LABELS = {
    "storage": Label("Kind of storage: `local` (a folder) or `s3`."),
    "operation": Label("What was asked of it.", ("read", "write", "list", "delete", "exists")),
}
METRICS = (REQUESTS, SECONDS, BYTES, RETRIES, ERRORS)
