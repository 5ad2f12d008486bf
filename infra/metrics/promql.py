"""How queries name metrics, so that one that is renamed in the catalogue cannot be left behind in a panel or a rule."""

from __future__ import annotations

from typing import Literal

from heliostat.infra.metrics.catalogue import Metric


def series(metric: Metric, labels: str = "", part: Literal["", "bucket", "count"] = "") -> str:
    """The metric as a query names it: with the prefix of Ray's agent, and with matchers such as `status="200"`.

    `part` is for histograms. There is no `sum`, which Ray makes up: `metric.total` counts what was observed.
    """
    name = f"ray_{metric.name}_{part}" if part else f"ray_{metric.name}"
    return f"{name}{{{labels}}}" if labels else name
