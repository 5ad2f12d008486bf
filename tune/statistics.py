"""Whether one configuration is really better than another: means over seeds, and the interval of their difference.

The values have to come from seeds that were not used to choose the better one (`tune.confirm`): of many configurations
the best by chance looks better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Repeats:
    """A configuration over seeds."""

    mean: float
    """NaN if no run has a finite value."""
    deviation: float | None
    """Sample standard deviation; None for fewer than two."""
    runs: int
    """Those with a finite value."""
    failed: int = 0
    """Those without, which the mean leaves out."""


@dataclass(frozen=True)
class Difference:
    """How much better one configuration is than another."""

    mean: float
    """Above zero where the first one is better, whatever the metric's mode; NaN if either has no finite value."""
    low: float | None
    """Ends of the interval that holds the true difference with `confidence`; None with fewer than two runs of each."""
    high: float | None
    method: str | None
    """`paired t` where both have the same seeds, else `Welch`; None without an interval."""
    runs: tuple[int, int]
    """Of the first and the second."""
    confidence: float = CONFIDENCE

    @property
    def is_real(self) -> bool | None:
        """Whether the interval leaves zero out; None if there is none."""
        return None if self.low is None or self.high is None else not self.low <= 0 <= self.high

    @property
    def interval(self) -> str:
        """The mean, and the ends of the interval if there is one."""
        ends = "" if self.low is None or self.high is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"{self.mean:.4g}{ends}"

    def sentence(self, one: str, other: str) -> str:
        """The difference in words; `one` and `other` name the configurations."""
        if math.isnan(self.mean):
            return f"{one} and {other} cannot be compared: one of them has no run with a finite value"
        text = f"{one} is {'better' if self.mean >= 0 else 'worse'} than {other} by {abs(self.mean):.4g}"
        if self.low is None or self.high is None:
            return f"{text}, without an interval: that needs two runs of each"
        interval = f"{self.confidence:.0%} interval of the gain {self.low:.4g} to {self.high:.4g}, {self._source()}"
        verdict = "" if self.is_real else "; it holds zero: the two cannot be told apart"
        return f"{text} ({interval}){verdict}"

    def _source(self) -> str:
        seeds = f"{self.runs[0]}" if self.runs[0] == self.runs[1] else f"{self.runs[0]} and {self.runs[1]}"
        return f"{self.method} over {seeds} seeds"


def repeats(values: Iterable[float]) -> Repeats:
    """Mean and deviation of the values of one configuration, of which some may be no finite numbers."""
    values = list(values)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Repeats(math.nan, None, 0, len(values))
    mean = math.fsum(finite) / len(finite)
    squares = math.fsum((value - mean) ** 2 for value in finite)
    deviation = math.sqrt(squares / (len(finite) - 1)) if len(finite) > 1 else None
    return Repeats(mean, deviation, len(finite), len(values) - len(finite))


def compare(
    one: Mapping[int, float], other: Mapping[int, float], mode: str, confidence: float = CONFIDENCE
) -> Difference:
    """The gain of `one` over `other`, values by seed, where `mode` (`min` or `max`) says what is better.

    Student's t of the differences where the seeds are the same ("The Probable Error of a Mean", 1908), else Welch's t
    with his degrees of freedom ("The Generalization of 'Student's' Problem when Several Different Population Variances
    are Involved", 1947). Runs without a finite value are left out.
    """
    sign = 1.0 if mode == "max" else -1.0
    first, second = (
        {seed: sign * value for seed, value in side.items() if math.isfinite(value)} for side in (one, other)
    )
    runs = (len(first), len(second))
    mean = repeats(first.values()).mean - repeats(second.values()).mean
    if min(runs) < 2:
        return Difference(mean, None, None, None, runs, confidence)
    is_paired = first.keys() == second.keys()
    low, high = _paired(first, second, confidence) if is_paired else _welch(first, second, confidence)
    return Difference(mean, low, high, "paired t" if is_paired else "Welch", runs, confidence)


def _paired(first: Mapping[int, float], second: Mapping[int, float], confidence: float) -> tuple[float, float]:
    gains = repeats(first[seed] - second[seed] for seed in first)
    assert gains.deviation is not None
    return _interval(gains.mean, gains.deviation / math.sqrt(gains.runs), gains.runs - 1, confidence)


def _welch(first: Mapping[int, float], second: Mapping[int, float], confidence: float) -> tuple[float, float]:
    one, other = repeats(first.values()), repeats(second.values())
    assert one.deviation is not None
    assert other.deviation is not None
    parts = [(side.deviation or 0.0) ** 2 / side.runs for side in (one, other)]
    error = math.sqrt(sum(parts))
    below = sum(part**2 / (side.runs - 1) for part, side in zip(parts, (one, other), strict=True))
    return _interval(one.mean - other.mean, error, sum(parts) ** 2 / below if below else 1.0, confidence)


def _interval(mean: float, error: float, degrees: float, confidence: float) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[import-untyped]

    width = float(t.ppf((1 + confidence) / 2, degrees)) * error
    return mean - width, mean + width
