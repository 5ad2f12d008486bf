"""Parallel coordinates: each trial as a line over all keys and objectives (Inselberg 1985)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliostat.tune.reports.axes import Axis, Placed, of_measured, shortened
from heliostat.tune.reports.drawing import (
    MOST_KEYS,
    MOST_LINES,
    Mark,
    Subject,
    far_out,
    note_of,
    of_many,
    path_of,
    sampled,
)
from heliostat.tune.reports.table import Row

WIDTH, HEIGHT, TOP, SIDE = 1040, 380, 52.0, 64.0
NONE = HEIGHT - 16.0
"""Where a line passes that has no value."""
BOTTOM = NONE - 26.0


@dataclass(frozen=True)
class Upright:
    """The axis of a key or an objective."""

    x: float
    name: str
    full_name: str
    marks: Sequence[tuple[float, str]]
    is_last: bool


@dataclass(frozen=True)
class Parallel:
    """The chart."""

    uprights: Sequence[Upright]
    lines: Sequence[Mark]
    """The best last, so that they are on top."""
    note: str
    width: int = WIDTH
    height: int = HEIGHT
    top: float = TOP
    bottom: float = BOTTOM
    none: float = NONE


def parallel(of: Subject) -> Parallel | None:
    """The chart of all trials; None without any, or without keys."""
    if not of.axes:
        return None
    keys = dict(list(of.axes.items())[:MOST_KEYS])
    goals = {one.metric: of_measured(_measured(of, one.metric)) for one in of.state.objectives}
    shown = sampled(of.rows, MOST_LINES)
    places = [
        round(SIDE + at * (WIDTH - 2 * SIDE) / (len(keys) + len(goals) - 1), 1) for at in range(len(keys) + len(goals))
    ]
    lines = [
        Mark(
            of.kinds[row.number],
            of.texts[row.number],
            path_of(list(zip(places, _heights(row, keys, goals), strict=True))),
        )
        for row in reversed(shown)
    ]
    note = note_of(
        of_many(len(shown), len(of.rows), "trials"),
        *(far_out(axis, _measured(of, metric)) for metric, axis in goals.items()),
        f"The first {len(keys)} of {len(of.axes)} keys are shown." if len(keys) < len(of.axes) else "",
    )
    return Parallel(_uprights(places, [*keys.items(), *goals.items()]), lines, note)


def _uprights(places: Sequence[float], axes: Sequence[tuple[str, Axis]]) -> list[Upright]:
    last = len(places) - 1
    return [
        Upright(x, shortened(name), name, Placed(axis, BOTTOM, TOP, 9).marks(), at == last)
        for at, (x, (name, axis)) in enumerate(zip(places, axes, strict=True))
    ]


def _heights(row: Row, keys: Mapping[str, Axis], goals: Mapping[str, Axis]) -> list[float]:
    """Where the row's line passes each axis."""
    tried = [Placed(axis, BOTTOM, TOP).at(row.values[key]) if key in row.values else NONE for key, axis in keys.items()]
    best = [Placed(axis, BOTTOM, TOP).at(row.best[goal]) if goal in row.best else NONE for goal, axis in goals.items()]
    return tried + best


def _measured(of: Subject, metric: str) -> list[float]:
    return [row.best[metric] for row in of.rows if metric in row.best]
