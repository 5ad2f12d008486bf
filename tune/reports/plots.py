"""A search's curves, slices and Pareto front."""

from __future__ import annotations

import math
from collections.abc import Collection

from heliostat.train.evaluation.report.charts import BOTTOM, LEFT, RIGHT, SMALL, TOP
from heliostat.tune.reports.axes import Axis, Placed, of_measured
from heliostat.tune.reports.drawing import (
    MOST_DOTS,
    MOST_KEYS,
    MOST_LINES,
    WIDE,
    Mark,
    Plot,
    Subject,
    far_out,
    note_of,
    of_many,
    path_of,
    sampled,
)
from heliostat.tune.reports.table import FINISHED, Row
from heliostat.tune.trials import Trial

PERCENT = Axis(0.0, 100.0, ticks=(0.0, 25.0, 50.0, 75.0, 100.0))


def curves(of: Subject) -> Plot | None:
    """The first objective's metric by how much of each trial was trained; None if no value is finite."""
    metric = of.state.objective.metric
    points = {trial.number: curve(trial, metric) for trial in of.state.trials}
    having = [row for row in of.rows if points[row.number]]
    if not having:
        return None
    values = [value for row in having for _, value in points[row.number]]
    x, y = _placed(PERCENT, of_measured(values))
    shown = sampled(having, MOST_LINES)
    marks = [
        _curve(of, row, [(x.at(100 * share), y.at(value)) for share, value in points[row.number]])
        for row in reversed(shown)
    ]
    note = note_of(of_many(len(shown), len(having), "curves"), far_out(y.axis, values))
    return Plot(metric, *WIDE, x, y, marks, "percent of the trial", note)


def curve(trial: Trial, metric: str) -> list[tuple[float, float]]:
    """The trial's finite values by share."""
    found = [(score.share, score.metrics.get(metric, math.nan)) for score in trial.scores]
    return [(share, value) for share, value in found if math.isfinite(value)]


def _curve(of: Subject, row: Row, points: list[tuple[float, float]]) -> Mark:
    """The curve, with a dot at its end."""
    return Mark(of.kinds[row.number], of.texts[row.number], path_of(points), *points[-1])


def slices(of: Subject) -> list[Plot]:
    """The first objective over each key; none if no trial has a value."""
    usable = [row for row in of.rows if of.state.objective.metric in row.best]
    keys = list(of.axes)[:MOST_KEYS] if usable else []
    return [_slice(of, usable, key) for key in keys]


def _slice(of: Subject, usable: list[Row], key: str) -> Plot:
    metric, axis, (width, height) = of.state.objective.metric, of.axes[key], SMALL
    having = [row for row in usable if key in row.values]
    shown = sampled(having, MOST_DOTS)
    x = Placed(axis, LEFT + 8, width - RIGHT - 8, 4)
    y = Placed(of_measured(row.best[metric] for row in usable), height - BOTTOM, TOP)
    marks = [_dot(of, row, x.at(row.values[key]), y.at(row.best[metric])) for row in reversed(shown)]
    note = note_of(
        of_many(len(shown), len(having), "trials"),
        far_out(y.axis, [row.best[metric] for row in having]),
        f"{len(usable) - len(having):,} have no value." if len(having) < len(usable) else "",
    )
    return Plot(key, width, height, x, y, marks, "logarithmic" if axis.is_log else "", note)


def pareto(of: Subject, front: Collection[int]) -> Plot | None:
    """The first two objectives, with the trials of the front; None for one objective, or without values."""
    if len(of.state.objectives) < 2:
        return None
    first, second = (one.metric for one in of.state.objectives[:2])
    usable = [row for row in of.rows if first in row.best and second in row.best]
    if not usable:
        return None
    firsts, seconds = ([row.best[metric] for row in usable] for metric in (first, second))
    x, y = _placed(of_measured(firsts), of_measured(seconds))
    others = sampled([row for row in usable if row.number not in front], MOST_DOTS)
    best = sorted((row for row in usable if row.number in front), key=lambda row: row.best[first])
    marks = [
        Mark(_front_kind(row, front), of.texts[row.number], x=x.at(row.best[first]), y=y.at(row.best[second]))
        for row in [*others, *best]
    ]
    note = note_of(of_many(len(marks), len(usable), "trials"), far_out(x.axis, firsts), far_out(y.axis, seconds))
    # Of three objectives it is a surface, through which a line would say nothing.
    line = best if len(of.state.objectives) == 2 else []
    path = path_of([(x.at(row.best[first]), y.at(row.best[second])) for row in line])
    return Plot(f"{second} by {first}", *WIDE, x, y, marks, first, note, path)


def _front_kind(row: Row, front: Collection[int]) -> str:
    return "top" if row.number in front else "rest" if row.state == FINISHED else "rest part"


def _dot(of: Subject, row: Row, x: float, y: float) -> Mark:
    return Mark(of.kinds[row.number], of.texts[row.number], x=x, y=y)


def _placed(x: Axis, y: Axis) -> tuple[Placed, Placed]:
    """The axes of a wide chart."""
    width, height = WIDE
    return Placed(x, LEFT, width - RIGHT), Placed(y, height - BOTTOM, TOP)
