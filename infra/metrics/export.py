"""Export of metrics through Ray's metrics agent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from heliostat.infra.metrics.catalogue import Metric


@cache
def _instrument(metric: Metric) -> Any:
    from ray.util import metrics

    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, boundaries=list(metric.buckets), tag_keys=metric.labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.help, tag_keys=metric.labels)


def record(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Increments a counter, sets a gauge or observes in a histogram; the process must be connected to Ray.

    `labels` has one value for each of `metric.labels`.
    """
    if metric.kind == "counter" and value == 0:
        return  # such as a rank without a record in the last, smaller batch; Ray refuses increments of 0
    method = {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind]
    getattr(_instrument(metric), method)(value, tags=dict(labels))
