"""What is known of each version in an experiment, and what it says about their difference.

Everyone looks at experiments while they run, and a guard does so every second. The usual p-value would call a
difference sooner or later where there is none; these hold at every moment at once (Johari, Pekelis, Walsh: "Always
Valid Inference: Bringing Sequential Analysis to A/B Testing", 2015; the mixture SPRT with a normal mixture).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

ALPHA = 0.01
"""The chance that an experiment without a difference is ever said to have one."""
RATE_SCALE = 0.1
"""Differences of rates and values between 0 and 1 that are looked for: the standard deviation of the mixture."""
LOG_SCALE = 0.2
"""The same for times, as differences of logarithms: a fifth faster or slower."""
BUCKETS_PER_E = 20
"""Times are counted in buckets that are 5% wide."""


@dataclass
class Moments:
    """Count, mean and sum of squared distances from it; adds up over replicas (Chan, Golub, LeVeque 1979)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> None:
        """One value."""
        self.merge(Moments(1, value))

    def merge(self, other: Moments) -> None:
        """All values of another one."""
        n = self.n + other.n
        if n:
            apart = other.mean - self.mean
            self.m2 += other.m2 + apart * apart * self.n * other.n / n
            self.mean += apart * other.n / n
            self.n = n

    @property
    def variance(self) -> float:
        """Of one value."""
        return self.m2 / (self.n - 1) if self.n > 1 else math.inf


@dataclass
class Arm:
    """One version: its requests, how many failed, how long they took, and what clients said of them."""

    requests: int = 0
    errors: int = 0
    log_seconds: Moments = field(default_factory=Moments)
    """Logarithm of the seconds to the first byte of the body, of requests that did not fail."""
    buckets: Counter[int] = field(default_factory=Counter)
    feedback: Moments = field(default_factory=Moments)

    def add(self, seconds: float | None) -> None:
        """A request, with its time; None where it failed."""
        self.requests += 1
        if seconds is None:
            self.errors += 1
            return
        log = math.log(max(seconds, 1e-6))
        self.log_seconds.add(log)
        self.buckets[math.floor(log * BUCKETS_PER_E)] += 1

    def merge(self, other: Arm) -> None:
        """All that another one knows."""
        self.requests += other.requests
        self.errors += other.errors
        self.log_seconds.merge(other.log_seconds)
        self.buckets.update(other.buckets)
        self.feedback.merge(other.feedback)

    @property
    def error_moments(self) -> Moments:
        """Failed requests as ones among zeros; half a failure and half a success more, so that none is no certainty."""
        n, rate = self.requests, (self.errors + 0.5) / (self.requests + 1)
        return Moments(n, self.errors / n if n else 0.0, rate * (1 - rate) * max(n - 1, 0))

    def quantile(self, q: float) -> float | None:
        """Seconds that the share `q` of the requests stayed below, to 5%; None where there are none."""
        seen, wanted = 0, q * sum(self.buckets.values())
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return math.exp((bucket + 0.5) / BUCKETS_PER_E)
        return None


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline."""

    estimate: float
    low: float
    high: float
    """The true difference is between both with probability 1 - ALPHA, whenever one looks."""
    p_value: float
    """Always valid: it may be looked at whenever one likes."""


def difference(baseline: Moments, candidate: Moments, scale: float) -> Difference | None:
    """Of two means; `scale` is the size of differences that are looked for. None where there are too few values."""
    if min(baseline.n, candidate.n) < 2:
        return None
    estimate = candidate.mean - baseline.mean
    variance = max(baseline.variance / baseline.n + candidate.variance / candidate.n, 1e-18)
    spread = scale * scale
    shrink = math.log(variance / (variance + spread))
    exponent = spread * estimate * estimate / (2 * variance * (variance + spread))
    p_value = min(1.0, math.exp(min(0.0, -0.5 * shrink - exponent)))
    radius = math.sqrt(variance * (variance + spread) / spread * (-2 * math.log(ALPHA) - shrink))
    return Difference(estimate, estimate - radius, estimate + radius, p_value)


def compare_errors(baseline: Arm, candidate: Arm) -> Difference | None:
    """Of the shares of failed requests."""
    return difference(baseline.error_moments, candidate.error_moments, RATE_SCALE)


def compare_times(baseline: Arm, candidate: Arm) -> Difference | None:
    """Of the logarithms of the times: `exp` of it is how many times as long the candidate takes."""
    return difference(baseline.log_seconds, candidate.log_seconds, LOG_SCALE)


def compare_feedback(baseline: Arm, candidate: Arm) -> Difference | None:
    """Of what clients said, between 0 and 1."""
    return difference(baseline.feedback, candidate.feedback, RATE_SCALE)
