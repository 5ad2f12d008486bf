"""Queries over the catalogue, narrowed to what is chosen at the top of a dashboard.

A metric is given as its constant in `heliostat.infra.metrics.catalogue`, so that a renamed one breaks the build.
"""

from __future__ import annotations

from typing import Literal

from heliostat.infra.metrics.metric import Metric
from heliostat.infra.metrics.promql import series

VARIABLES = ("model", "version", "run", "search")
"""Labels that a dashboard has a variable for."""
WINDOW = "$__rate_interval"


Part = Literal["", "bucket", "count"]


def select(metric: Metric, where: str = "", part: Part = "") -> str:
    """The series of `metric` that the dashboard's variables choose; `where` is a further matcher, as `status="500"`."""
    chosen = [f'{label}=~"${label}"' for label in VARIABLES if label in metric.labels]
    return series(metric, ", ".join([*chosen, *filter(None, [where])]), part)


def rate(metric: Metric, by: str = "", where: str = "", part: Part = "") -> str:
    """Per second, summed up by the labels `by`."""
    return f"sum{_by(by)}(rate({select(metric, where, part)}[{WINDOW}]))"


def mean(metric: Metric, by: str = "") -> str:
    """Mean of what a histogram observed: by its counter, since Ray's sum of a histogram is an estimate."""
    return f"{rate(metric.total, by)} / {rate(metric, by, part='count')}"


def quantile(share: float, metric: Metric, by: str = "") -> str:
    """The quantile of what a histogram observed, interpolated within a bucket."""
    return f"histogram_quantile({share:g}, {rate(metric, f'le, {by}' if by else 'le', part='bucket')})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
