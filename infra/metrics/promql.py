"""How queries name metrics, so that one that is renamed in the catalogue cannot be left behind in a panel or a rule."""

from __future__ import annotations

from typing import Literal

from heliostat.infra.metrics.metric import Metric


def series(metric: Metric, labels: str = "", part: Literal["", "bucket", "count"] = "") -> str:
    """The metric as a query names it: as it is exposed, and with matchers such as `status="200"`.

    `part` is for histograms. There is no `sum`, which Ray makes up: `metric.total` counts what was observed.
    """
    name = f"{metric.exposed}_{part}" if part else metric.exposed
    return f"{name}{{{labels}}}" if labels else name
