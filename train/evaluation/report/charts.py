"""Layout of charts: numbers in, coordinates out. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.train.evaluation.report.curves import MOST_POINTS, Point, finite, smoothed, smoothing, thinned, ticks

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 36
"""Margins for axis labels, in SVG units."""
SMALL = (340, 216)
"""Width and height of a chart that is shown next to others."""


@dataclass(frozen=True)
class Scale:
    """Maps values to positions along one axis."""

    ticks: list[float]
    start: float
    end: float

    def at(self, value: float) -> float:
        """The position of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def marks(self) -> list[tuple[float, str]]:
        """Position and label of each tick."""
        return [(round(self.at(tick), 1), label(tick)) for tick in self.ticks]


@dataclass(frozen=True)
class Line:
    """A curve: its CSS class, its name, and its points as an SVG path."""

    kind: str
    name: str
    path: str


@dataclass(frozen=True)
class Dot:
    """A value that is shown on hover."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of values by step."""

    title: str
    width: int
    height: int
    x: Scale
    y: Scale
    lines: list[Line]
    dots: list[Dot]
    """Validation values."""
    gaps: list[float]
    """Positions of steps whose value is NaN or infinite."""
    note: str


@dataclass(frozen=True)
class Bar:
    """A bar of the reliability chart: a confidence bin's accuracy and number of records."""

    x: float
    width: float
    y: float
    height: float
    count_height: float
    text: str


@dataclass(frozen=True)
class Reliability:
    """A chart of accuracy by confidence."""

    width: int
    height: int
    x: Scale
    y: Scale
    bars: list[Bar]
    floor: float
    """Baseline of the bars that count records."""


def label(value: float) -> str:
    """A tick label, as short as possible."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:,.7g}"
    mantissa, power = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


def by_step(
    title: str,
    values: Mapping[int, float],
    validations: Mapping[int, float] | None = None,
    smooth: bool = False,
    size: tuple[int, int] = SMALL,
) -> Chart | None:
    """A line chart of values by step; with `smooth`, a smoothed line is drawn on top. Validations are dots.

    None if no value is finite. Above MOST_POINTS steps, the points of `curves.thinned` are drawn.
    """
    validations = validations or {}
    points, rare = finite(values), finite(validations)
    if not points and not rare:
        return None
    width, height = size
    steps, heights = [*values, *validations], [value for _, value in [*points, *rare]]
    x = Scale(step_ticks(min(steps), max(steps)), LEFT, width - RIGHT)
    y = Scale(ticks(min(heights), max(heights)), height - BOTTOM, TOP)
    lines = [Line("raw" if smooth else "smooth", "each step", path(thinned(points), x, y))] if points else []
    if smooth and points:
        lines.append(smooth_line(points, x, y))
    if not points:
        lines.append(Line("link", "", path(thinned(rare), x, y)))
    return Chart(title, width, height, x, y, lines, dots(rare, x, y), gaps(values, x), thinning(len(points)))


def smooth_line(points: Sequence[Point], x: Scale, y: Scale) -> Line:
    """The moving average of a curve."""
    window = smoothing(len(points))
    average = smoothed([value for _, value in points], 1 - 1 / window)
    even = [(step, value) for (step, _), value in zip(points, average, strict=True)]
    return Line("smooth", f"smoothed over {window} steps", path(thinned(even), x, y))


def dots(points: Sequence[Point], x: Scale, y: Scale) -> list[Dot]:
    """Dots for validation values."""
    return [
        Dot(round(x.at(step), 1), round(y.at(value), 1), f"step {step:g}: {value:.4g}")
        for step, value in thinned(points)
    ]


def gaps(values: Mapping[int, float], x: Scale) -> list[float]:
    """Positions of steps whose value is NaN or infinite."""
    return sorted({round(x.at(step), 1) for step, value in values.items() if not math.isfinite(value)})


def thinning(steps: int) -> str:
    """The note on a curve that is not drawn in full; empty if it is."""
    return f"Of {steps:,} steps, the lowest and highest of each part are drawn." if steps > MOST_POINTS else ""


def step_ticks(low: float, high: float) -> list[float]:
    """Ticks at the first and last step, and at round numbers between."""
    if low == high:
        return [low - 1, low, low + 1]
    margin = (high - low) / 8
    return [low, *(tick for tick in ticks(low, high, 5) if low + margin < tick < high - margin and tick % 1 == 0), high]


def path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """The SVG path through the points."""
    return "M" + " ".join(f"{x.at(step):.1f},{y.at(value):.1f}" for step, value in points)


def reliability(bins: Sequence[Mapping[str, Any]], width: int = SMALL[0], height: int = 290) -> Reliability | None:
    """Bars of accuracy by confidence, with the record counts below; None without records.

    `bins` are `classification.Bin`s as mappings.
    """
    most = max((one["count"] for one in bins), default=0)
    if not most:
        return None
    strip = 46
    share = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    x, y = Scale(share, LEFT, width - RIGHT), Scale(share, height - BOTTOM - strip - 22, TOP)
    floor = height - BOTTOM
    bars = [
        Bar(
            x=round(x.at(one["low"]) + 1, 1),
            width=round(x.at(one["high"]) - x.at(one["low"]) - 2, 1),
            y=round(y.at(one["accuracy"]), 1),
            height=round(y.start - y.at(one["accuracy"]), 1),
            count_height=round(max(1.5, one["count"] / most * strip), 1),
            text=f"probability {one['low']:.2f} to {one['high']:.2f}, {one['confidence']:.2f} on average: "
            f"{one['accuracy']:.0%} of {one['count']:,} records right",
        )
        for one in bins
        if one["count"]
    ]
    return Reliability(width, height, x, y, bars, floor)
