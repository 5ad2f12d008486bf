"""The page docs/metrics.md, from the catalogue: `python -m heliostat.infra.metrics.document > docs/metrics.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from heliostat.infra.metrics.catalogue import CATALOGUE, EXPORTED, LABELS, SERVING, STORAGE, TRAINING, TUNING
from heliostat.infra.metrics.metric import Metric

HEAD = """\
# Metrics

Written by `python -m heliostat.infra.metrics.document` from
[`infra/metrics/catalogue.py`](../infra/metrics/catalogue.py); change that. How they are scraped and shown:
[monitoring.md](monitoring.md).

Prometheus sees each name with the prefix `ray_`, and labels of Ray beside ours: `NodeAddress`, `WorkerId`,
`SessionName`, `Component`, `Version`. Counters begin at zero, so the first event counts in a rate. A gauge is there as
long as its process, and gone within three reports of Ray's agent (`RAY_metrics_report_interval_ms`, 5 s) after its end.
What belongs to no process is told by [the exporter](monitoring.md#the-exporter), without prefix and labels of Ray.
For means, use the counter `…_total` beside a histogram: the `_sum` of a histogram is an estimate of Ray's agent.
"""
SECTIONS = (
    ("Of each replica", SERVING),
    ("Of each training worker", TRAINING),
    ("Of each search", TUNING),
    ("Of each worker and replica, about storage", STORAGE),
    ("Of the exporter", EXPORTED),
)
COLUMNS = ("metric", "kind", "unit", "labels", "what", "for")


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    for title, metrics in SECTIONS:
        parts += [f"## {title}\n", _table(COLUMNS, map(_row, metrics))]
    bounded = [metric for metric in CATALOGUE if metric.buckets]
    parts += ["## Bounds of histograms\n", _table(("metric", "upper bounds"), map(_bounds, bounded))]
    labels = ((f"`{name}`", label.help, ", ".join(map(_code, label.values))) for name, label in LABELS.items())
    parts += ["## Labels\n", _table(("label", "what", "counters begin with"), labels)]
    return "\n".join(parts)


def _row(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help, metric.purpose


def _bounds(metric: Metric) -> tuple[str, ...]:
    return f"`{metric.name}`", ", ".join(f"{bound:g}" for bound in metric.buckets)


def _code(value: str) -> str:
    return f"`{value}`" if value else "empty"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = tuple(columns)
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
