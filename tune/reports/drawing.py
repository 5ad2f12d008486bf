"""What all charts of a search share: which trials are drawn, how they look, and what is said of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from heliostat.tune.reports.axes import Axis, Placed, axis_of
from heliostat.tune.reports.table import FAILED, FINISHED, Row, rows
from heliostat.tune.state import PageState, SearchState

WIDE = (960, 320)
"""Width and height of a chart that has a row of its own, in SVG units."""
MOST_LINES, MOST_DOTS, MOST_KEYS = 150, 400, 12
"""Of one chart: more cannot be told apart."""


@dataclass(frozen=True)
class Subject:
    """The trials of a search as charts have them."""

    state: SearchState
    rows: Sequence[Row]
    """Best first."""
    axes: Mapping[str, Axis]
    """Of each key that any trial has a value for."""
    kinds: Mapping[int, str]
    """Trial -> its CSS classes: `top`, `rest` or `failed`, and `part` where it was not trained in full."""
    texts: Mapping[int, str]
    """Trial -> what is shown on hover."""


@dataclass(frozen=True)
class Mark:
    """A trial in a chart: a line's path, a dot's place, or both."""

    kind: str
    text: str
    path: str = ""
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Plot:
    """Lines and dots over two axes."""

    title: str
    width: int
    height: int
    x: Placed
    y: Placed
    marks: Sequence[Mark]
    """The best last, so that they are on top."""
    x_name: str
    note: str = ""
    front: str = ""
    """The path of the Pareto front."""


def subject(page: PageState) -> Subject:
    """The trials of a page."""
    state, found = page.search, rows(page.search)
    tried = {key: [row.values[key] for row in found if key in row.values] for key in state.searched}
    axes = {key: axis_of(one, key in page.logarithmic, key in page.categorical) for key, one in tried.items() if one}
    kinds = {row.number: kind_of(place, row, len(found)) for place, row in enumerate(found)}
    return Subject(state, found, axes, kinds, {row.number: described(state, row) for row in found})


def kind_of(place: int, row: Row, count: int) -> str:
    """CSS classes of the row at `place` among `count`, best first."""
    if row.state == FAILED or not row.best:
        return "failed"
    return ("top" if place < max(1, count // 10) else "rest") + ("" if row.state == FINISHED else " part")


def described(state: SearchState, row: Row) -> str:
    """A trial in a line."""
    measured = [f"{one.metric} {row.best[one.metric]:.4g}" for one in state.objectives if one.metric in row.best]
    values = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.values.items()
    ]
    return f"trial {row.number}, {row.state} at {row.progress}: {', '.join([*measured, *values])}"


def sampled(found: Sequence[Row], most: int) -> list[Row]:
    """All rows, or the best, which are a quarter of `most`, and others evenly; best first."""
    if len(found) <= most:
        return list(found)
    head, rest = found[: most // 4], found[most // 4 :]
    count = most - len(head)
    return [*head, *(rest[round(at * (len(rest) - 1) / (count - 1))] for at in range(count))]


def of_many(shown: int, total: int, what: str) -> str:
    """The note on a chart that does not show all; empty if it does."""
    return f"{shown:,} of {total:,} {what} are drawn: the best, and others evenly." if shown < total else ""


def far_out(axis: Axis, values: Collection[float]) -> str:
    """The note on values that are drawn at an axis's end; empty if there are none."""
    count = sum(axis.is_beyond(value) for value in values)
    return f"{count:,} {'value is' if count == 1 else 'values are'} far out, and drawn at the edge." if count else ""


def note_of(*parts: str) -> str:
    """Notes as one text."""
    return " ".join(part for part in parts if part)


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """The SVG path through the points; empty for fewer than two."""
    return "M" + " ".join(f"{x},{y}" for x, y in points) if len(points) > 1 else ""
