"""Statistics of each version in an experiment, and tests of their difference.

Experiments are looked at while they run, and the guard checks every second. An ordinary p-value would sooner or later
report a difference that does not exist; these are valid at all times (Johari, Pekelis, Walsh: "Always Valid Inference:
Bringing Sequential Analysis to A/B Testing", 2015; the mixture SPRT with a normal mixture).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

ALPHA = 0.01
"""Probability that an experiment without a real difference ever reports one."""
RATE_SCALE = 0.1
"""Standard deviation of the mixture for rates and ratings from 0 to 1: the size of differences to detect."""
LOG_SCALE = 0.2
"""The same for differences of log times: about 20% faster or slower."""
BUCKETS_PER_E = 20
"""Resolution of the time histogram: buckets are 5% wide."""


@dataclass
class Moments:
    """Count, mean and sum of squared deviations; mergeable across replicas (Chan, Golub, LeVeque 1979)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> None:
        """Adds one value."""
        self.merge(Moments(1, value))

    def merge(self, other: Moments) -> None:
        """Adds all values of another sample."""
        n = self.n + other.n
        if n:
            apart = other.mean - self.mean
            self.m2 += other.m2 + apart * apart * self.n * other.n / n
            self.mean += apart * other.n / n
            self.n = n

    @property
    def variance(self) -> float:
        """Sample variance; infinite for fewer than two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else math.inf


@dataclass
class Arm:
    """Statistics of one version: requests, errors, times and ratings."""

    requests: int = 0
    errors: int = 0
    log_seconds: Moments = field(default_factory=Moments)
    """Natural logarithm of the time to first byte in seconds, of successful requests."""
    buckets: Counter[int] = field(default_factory=Counter)
    feedback: Moments = field(default_factory=Moments)

    def add(self, seconds: float | None) -> None:
        """Adds one request with its time; None if it failed."""
        self.requests += 1
        if seconds is None:
            self.errors += 1
            return
        log = math.log(max(seconds, 1e-6))
        self.log_seconds.add(log)
        self.buckets[math.floor(log * BUCKETS_PER_E)] += 1

    def merge(self, other: Arm) -> None:
        """Adds the statistics of another replica."""
        self.requests += other.requests
        self.errors += other.errors
        self.log_seconds.merge(other.log_seconds)
        self.buckets.update(other.buckets)
        self.feedback.merge(other.feedback)

    @property
    def error_moments(self) -> Moments:
        """Moments of the 0/1 error indicator; half an error and half a success are added to the variance."""
        return _indicator(self.requests, self.errors)

    def slower_moments(self, seconds: float) -> Moments:
        """Moments of the 0/1 indicator that a successful request took longer, as `error_moments`; within 5%."""
        limit = math.floor(math.log(seconds) * BUCKETS_PER_E)
        return _indicator(self.log_seconds.n, sum(n for bucket, n in self.buckets.items() if bucket > limit))

    def quantile(self, q: float) -> float | None:
        """The time in seconds at quantile `q`, within 5%; None if there are no requests."""
        seen, wanted = 0, q * sum(self.buckets.values())
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return math.exp((bucket + 0.5) / BUCKETS_PER_E)
        return None


def _indicator(n: int, ones: int) -> Moments:
    rate = (ones + 0.5) / (n + 1)
    return Moments(n, ones / n if n else 0.0, rate * (1 - rate) * max(n - 1, 0))


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline, with a confidence interval."""

    estimate: float
    low: float
    high: float
    """Bounds of the confidence interval of level 1 - ALPHA, valid at all times."""
    p_value: float
    """Valid at all times, so it may be checked repeatedly."""


def difference(baseline: Moments, candidate: Moments, scale: float) -> Difference | None:
    """Difference of two means; `scale` is the size of differences to detect. None if there are too few values."""
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
    """Difference of the error rates."""
    return difference(baseline.error_moments, candidate.error_moments, RATE_SCALE)


def compare_times(baseline: Arm, candidate: Arm) -> Difference | None:
    """Difference of the mean log times: its `exp` is the ratio of the candidate's time to the baseline's."""
    return difference(baseline.log_seconds, candidate.log_seconds, LOG_SCALE)


def compare_slow(baseline: Arm, candidate: Arm, seconds: float) -> Difference | None:
    """Difference of the shares of requests that took longer than `seconds` to their first byte."""
    return difference(baseline.slower_moments(seconds), candidate.slower_moments(seconds), RATE_SCALE)


def compare_feedback(baseline: Arm, candidate: Arm) -> Difference | None:
    """Difference of the mean ratings, from 0 to 1."""
    return difference(baseline.feedback, candidate.feedback, RATE_SCALE)
