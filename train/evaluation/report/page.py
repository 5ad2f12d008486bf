"""A run as one HTML file that needs nothing else: no network, no scripts, inline SVG, light and dark.

Records are text that nobody has vetted, so Jinja2 escapes whatever is put in, and the page forbids scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.infra.images import PNG
from heliostat.train.evaluation.report import charts
from heliostat.train.evaluation.report.charts import Chart

MOST_CLASSES = 20
"""That a confusion matrix shows; of more, its largest entries off the diagonal."""
MOST_CONFUSIONS = 30

Curves = Mapping[str, Mapping[int, float]]
"""Values by step: `train/loss`, `train/learning_rate`, `train/grad_norm`, and `validation/<metric>`."""


@dataclass(frozen=True)
class Report:
    """What there is to say of a run."""

    name: str
    subtitle: str
    facts: Mapping[str, str]
    """Where the model comes from."""
    metrics: Mapping[str, float]
    """On the test split."""
    metric: str
    """The one that models are compared by."""
    spec: str
    """Resolved, as YAML."""
    labels: Sequence[str] = ()
    curves: Curves | None = None
    """None where no run is reported on, but a model."""
    confusion: Sequence[Sequence[int]] | None = None
    reliability: Sequence[Mapping[str, Any]] | None = None
    """`classification.Bin`s as mappings."""
    worst: Sequence[Mapping[str, str | int | float]] | None = None
    """`Task.worst`; None where it could not be found out."""


def render(report: Report) -> str:
    """The report as an HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, percent=percent)
    environment.tests["text"] = lambda value: isinstance(value, str)
    environment.tests["image"] = lambda value: isinstance(value, str) and value.startswith(PNG)
    return environment.get_template("page.html").render(
        report=report,
        loss=loss_chart(report.curves or {}),
        charts=small_charts(report.curves or {}, report.metric),
        skipped=skipped(report.curves or {}),
        reliability=charts.reliability(report.reliability or []),
        classes=by_class(report),
        most_classes=MOST_CLASSES,
        confusions=confusions(report),
        verdict=verdict(report),
    )


def figure(value: float) -> str:
    """A number with four digits that matter; whole numbers as they are."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share of one."""
    return "–" if share is None else f"{share:.1%}"


def loss_chart(curves: Curves) -> Chart | None:
    """The training loss, raw and smoothed, with the validations."""
    return charts.by_step("Loss", curves.get("train/loss", {}), curves.get("validation/loss"), True, (960, 320))


def small_charts(curves: Curves, metric: str) -> list[Chart]:
    """Learning rate, gradient norm, and the metric of several validations where that is not the loss."""
    rate, norm, validated = (
        curves.get(name, {}) for name in ("train/learning_rate", "train/grad_norm", f"validation/{metric}")
    )
    drawn = [
        charts.by_step("Learning rate", rate),
        charts.by_step("Gradient norm", norm, smooth=True),
        charts.by_step(f"Validation {metric}", {}, validated) if metric != "loss" and len(validated) > 1 else None,
    ]
    return [chart for chart in drawn if chart]


def skipped(curves: Curves) -> int:
    """Steps that were left out: their loss or gradients were no numbers."""
    both = [curves.get(name, {}) for name in ("train/loss", "train/grad_norm")]
    return len({step for values in both for step in values if not math.isfinite(values[step])})


def by_class(report: Report) -> list[tuple[str, int, float | None, float | None]]:
    """Of each label: its records, precision and recall; None where no record is predicted so, or none is so."""
    matrix = report.confusion or []
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    return [
        (
            label,
            sum(matrix[i]),
            matrix[i][i] / predicted[i] if predicted[i] else None,
            matrix[i][i] / sum(matrix[i]) if sum(matrix[i]) else None,
        )
        for i, label in enumerate(report.labels[: len(matrix)])
    ]


def confusions(report: Report) -> list[tuple[str, str, int, float]]:
    """The largest entries off the diagonal: true label, predicted label, records, their share of the true label's."""
    found = [
        (report.labels[true], report.labels[predicted], count, count / sum(row))
        for true, row in enumerate(report.confusion or [])
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda one: -one[2])[:MOST_CONFUSIONS]


def verdict(report: Report) -> str:
    """What the worst records are, or why there are none."""
    if report.worst is None:
        return "They could not be found out; the log says why."
    if report.confusion is None and any(str(value).startswith(PNG) for value in report.worst[0].values()):
        return "What the model makes of noise."
    if report.confusion is None:
        return (
            f"Of the test split, the {len(report.worst)} records with the highest mean loss per target, highest first."
        )
    total = sum(map(sum, report.confusion))
    wrong = total - sum(row[label] for label, row in enumerate(report.confusion))
    if wrong == 0:
        return f"There are none: all {total:,} records of the test split are predicted right."
    shown = "all" if wrong <= len(report.worst) else f"the {len(report.worst)} with the highest probability"
    return f"Predicted wrong: {wrong:,} of {total:,} records of the test split; {shown} are shown, the surest first."
