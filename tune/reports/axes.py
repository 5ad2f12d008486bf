"""Axes of a search's charts: from a value that was tried or measured to a place in [0, 1]."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.train.evaluation.report.charts import label
from heliostat.train.evaluation.report.curves import ticks

MOST_LETTERS = 14
"""Of a mark."""
_FENCE = 3.0
"""Interquartile ranges beyond the quartiles from where a value is far out (Tukey 1977)."""


@dataclass(frozen=True)
class Axis:
    """The range of one quantity, or its values side by side."""

    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    choices: tuple[str, ...] = ()
    """As `text_of` writes them; numbers have none."""
    ticks: tuple[float, ...] = ()

    def at(self, value: Any) -> float:
        """The place of a value in [0, 1]; one beyond the axis is at its end."""
        if self.choices:
            return (self.choices.index(text_of(value)) + 0.5) / len(self.choices)
        low, high, value = (_log(one) if self.is_log else one for one in (self.low, self.high, float(value)))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def is_beyond(self, value: float) -> bool:
        """Whether a number is not on the axis."""
        return not self.low <= value <= self.high

    def marks(self, most: int = 12) -> list[tuple[float, str]]:
        """Places and labels; of many values some, evenly."""
        if not self.choices:
            return [(self.at(tick), label(tick)) for tick in self.ticks]
        every = math.ceil(len(self.choices) / most)
        return [(self.at(json.loads(one)), shortened(plain(one))) for one in self.choices[::every]]


@dataclass(frozen=True)
class Placed:
    """An axis in a chart, from `start` to `end` in SVG units."""

    axis: Axis
    start: float
    end: float
    most_marks: int = 6

    def at(self, value: Any) -> float:
        """The position of a value."""
        return round(self.start + self.axis.at(value) * (self.end - self.start), 1)

    def marks(self) -> list[tuple[float, str]]:
        """Position and label of each mark."""
        return [
            (round(self.start + place * (self.end - self.start), 1), name)
            for place, name in self.axis.marks(self.most_marks)
        ]


def axis_of(values: Sequence[Any], is_log: bool = False, is_categorical: bool = False) -> Axis:
    """The axis of a key's values: numbers from least to greatest, anything else side by side."""
    if is_categorical or not all(is_number(value) for value in values):
        return Axis(choices=tuple(sorted({text_of(value) for value in values}, key=_order)))
    return of_numbers(values, is_log)


def of_numbers(values: Iterable[float], is_log: bool = False) -> Axis:
    """The axis of finite numbers; linear where one is not positive."""
    found = [float(value) for value in values] or [0.0, 1.0]
    low, high = min(found), max(found)
    if not (is_log and low > 0):
        shown = ticks(low, high)
        return Axis(shown[0], shown[-1], ticks=tuple(shown))
    if low == high:
        low, high = low / 2, high * 2
    return Axis(low, high, True, ticks=tuple(log_ticks(low, high)))


def of_measured(values: Iterable[float]) -> Axis:
    """The axis of measured values without those that are far out, which would leave no room for the others."""
    found = sorted(value for value in values if math.isfinite(value))
    if len(found) < 4:
        return of_numbers(found)
    lower, upper = (found[round(share * (len(found) - 1))] for share in (0.25, 0.75))
    reach = _FENCE * (upper - lower)
    near = [value for value in found if lower - reach <= value <= upper + reach] if reach else found
    return of_numbers(near)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between low and high; where there are fewer than two, twice and five times those as well."""
    powers = range(math.floor(_log(low)), math.ceil(_log(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [float(f"{factor}e{power}") for power in powers for factor in factors]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) >= 2:
            every = math.ceil(len(found) / 7)
            return found[::every]
    return [low, high]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(value: Any) -> str:
    """A value as JSON, by which equal ones are recognised."""
    return json.dumps(value, sort_keys=True, default=str)


def plain(text: str) -> str:
    """A value that `text_of` wrote, as a person writes it."""
    value = json.loads(text)
    return value if isinstance(value, str) else text


def shortened(text: str) -> str:
    """At most MOST_LETTERS letters."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def _order(text: str) -> tuple[int, float, str]:
    value = json.loads(text)
    return (0, float(value), "") if is_number(value) else (1, 0.0, text)


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
