"""Where the time of a search went: a bar for each trial, and sums by state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.train.evaluation.report.charts import BOTTOM, LEFT, RIGHT, TOP
from heliostat.tune.reports.axes import Axis, Placed, of_numbers
from heliostat.tune.reports.table import STATES, Row

WIDTH, HEIGHT = 960, 220
MOST_BARS = 160


@dataclass(frozen=True)
class Column:
    """The seconds of a trial, or the mean of neighbours."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    """The state of the trial, or of most of them."""
    text: str


@dataclass(frozen=True)
class Times:
    """The chart."""

    x: Placed
    y: Placed
    columns: Sequence[Column]
    note: str
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Sum:
    """The trials of one state."""

    state: str
    trials: int
    seconds: float
    share: float
    """Of the seconds of all trials."""
    cost: float | None


def times(rows: Sequence[Row]) -> Times | None:
    """Seconds by trial, in the order of their numbers; None if nothing was trained."""
    ordered = sorted(rows, key=lambda row: row.number)
    if not any(row.seconds for row in ordered):
        return None
    size = math.ceil(len(ordered) / MOST_BARS)
    groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    y = Placed(of_numbers([0.0, *map(mean, groups)]), HEIGHT - BOTTOM, TOP)
    x = Placed(_numbers(ordered), LEFT, WIDTH - RIGHT)
    step = (x.end - x.start) / len(groups)
    columns = [_column(group, x.start + at * step, step, y) for at, group in enumerate(groups)]
    return Times(
        x, y, columns, f"Each bar is the mean of {size} trials, with the state of most of them." if size > 1 else ""
    )


def sums(rows: Sequence[Row]) -> list[Sum]:
    """Trials and their time by state."""
    total = sum(row.seconds for row in rows)
    found = []
    for state in STATES:
        mine = [row for row in rows if row.state == state]
        seconds = sum(row.seconds for row in mine)
        costs = [row.cost for row in mine if row.cost is not None]
        if mine:
            found.append(
                Sum(state, len(mine), seconds, seconds / total if total else 0.0, sum(costs) if costs else None)
            )
    return found


def mean(group: Sequence[Row]) -> float:
    """Seconds of a trial on average."""
    return sum(row.seconds for row in group) / len(group)


def _numbers(ordered: Sequence[Row]) -> Axis:
    """The axis of the trials' numbers, each bar's at its left."""
    first, last = ordered[0].number, ordered[-1].number
    middle = (first + last) // 2
    return Axis(float(first), last + 1.0, ticks=tuple(map(float, sorted({first, middle, last}))))


def _column(group: Sequence[Row], x: float, step: float, y: Placed) -> Column:
    top = y.at(mean(group))
    kind = max(STATES, key=lambda state: sum(row.state == state for row in group))
    return Column(round(x, 1), top, round(max(0.8, step * 0.84), 1), round(y.start - top, 1), kind, _text(group))


def _text(group: Sequence[Row]) -> str:
    if len(group) > 1:
        return f"trials {group[0].number} to {group[-1].number}: {mean(group):.4g} s on average"
    (row,) = group
    cost = "" if row.cost is None else f", cost {row.cost:.4g}"
    return f"trial {row.number}, {row.state} at {row.progress}: {row.seconds:.4g} s{cost}"
