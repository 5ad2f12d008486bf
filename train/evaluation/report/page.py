"""A run as one self-contained HTML file: no network, no scripts, inline SVG, light and dark.

Records are untrusted text, so Jinja2 escapes everything, and the page forbids scripts.
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
"""Largest confusion matrix shown; for more classes, its largest entries off the diagonal."""
MOST_CONFUSIONS = 30

Curves = Mapping[str, Mapping[int, float]]
"""Values by step: `train/loss`, `train/learning_rate`, `train/grad_norm`, and `validation/<metric>`."""


@dataclass(frozen=True)
class Report:
    """The contents of a report."""

    name: str
    subtitle: str
    facts: Mapping[str, str]
    """The model's provenance, such as run and data."""
    metrics: Mapping[str, float]
    """On the test split."""
    metric: str
    """The metric that models are compared by."""
    spec: str
    """The resolved spec as YAML."""
    labels: Sequence[str] = ()
    curves: Curves | None = None
    """None for a report on a model without its run."""
    confusion: Sequence[Sequence[int]] | None = None
    reliability: Sequence[Mapping[str, Any]] | None = None
    """`classification.Bin`s as mappings."""
    worst: Sequence[Mapping[str, str | int | float]] | None = None
    """`Task.worst`; None if it failed."""


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
    """A number with four significant digits; integers in full."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A fraction as a percentage; a dash for None."""
    return "–" if share is None else f"{share:.1%}"


def loss_chart(curves: Curves) -> Chart | None:
    """The training loss, raw and smoothed, with the validations."""
    return charts.by_step("Loss", curves.get("train/loss", {}), curves.get("validation/loss"), True, (960, 320))


def small_charts(curves: Curves, metric: str) -> list[Chart]:
    """Learning rate, gradient norm, and the validation metric if it is not the loss and has several values."""
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
    """Number of skipped steps: those whose loss or gradients were NaN or infinite."""
    both = [curves.get(name, {}) for name in ("train/loss", "train/grad_norm")]
    return len({step for values in both for step in values if not math.isfinite(values[step])})


def by_class(report: Report) -> list[tuple[str, int, float | None, float | None]]:
    """Per label: number of records, precision and recall; None if the label is never predicted, or has no records."""
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
    """The largest entries off the diagonal: true label, predicted label, records, share of the true label's records."""
    found = [
        (report.labels[true], report.labels[predicted], count, count / sum(row))
        for true, row in enumerate(report.confusion or [])
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda one: -one[2])[:MOST_CONFUSIONS]


def verdict(report: Report) -> str:
    """The caption of the worst records, or why there are none."""
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
