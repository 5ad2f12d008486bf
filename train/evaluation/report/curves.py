"""Prepares a run's values by step for drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

Point = tuple[float, float]

MOST_POINTS = 1000
"""Most points of a curve: about as many as a screen can show."""


def finite(values: Mapping[int, float]) -> list[Point]:
    """The finite values, by step."""
    return [(step, value) for step, value in sorted(values.items()) if math.isfinite(value)]


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """The exponential moving average, unbiased at its start (Kingma and Ba 2015, section 3)."""
    average, result = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


def smoothing(count: int) -> int:
    """Window of the moving average in steps: a fiftieth of `count`, at least 10."""
    return max(10, count // 50)


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """`points` unchanged if there are at most `most`; else the lowest and highest point of each of `most / 2` parts.

    A spike of one step stays visible, which averaging would hide.
    """
    if len(points) <= most:
        return list(points)
    bounds = [round(i * len(points) / (most // 2)) for i in range(most // 2 + 1)]
    kept: list[Point] = []
    for start, end in pairwise(bounds):
        part = range(start, end)
        ends = {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
        kept += [points[i] for i in sorted(ends)]
    return kept


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round values that span low to high: steps of 1, 2 or 5 times a power of ten (Heckbert 1990)."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
