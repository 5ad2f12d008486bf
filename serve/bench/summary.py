"""Results of a load test: rates, errors, and the distribution of each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from heliostat.serve.bench.target import Sample

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Times:
    """Summary of a distribution, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times | None:
        """Summarizes times in seconds; None if there are none."""
        if not seconds:
            return None
        values = np.asarray(seconds) * 1000
        p50, p90, p99 = (float(one) for one in np.percentile(values, PERCENTILES))
        return cls(float(values.mean()), p50, p90, p99, float(values.max()))


@dataclass(frozen=True)
class Summary:
    """Summary of all requests; times are those of successful ones only."""

    requests: int
    errors: dict[str, int]
    """Error -> how often it occurred."""
    seconds: float
    requests_per_second: float
    """Successful ones only."""
    tokens_per_second: float
    """Generated tokens, in successful responses."""
    latency: Times | None
    """From when a request was due to the end of its response."""
    first_token: Times | None
    """From when a request was due to the first chunk of text (TTFT)."""
    inter_token: Times | None
    """Between consecutive chunks of text of one response (ITL)."""


def summarise(samples: Sequence[Sample], seconds: float) -> Summary:
    """Summarizes `samples`, which took `seconds` in all."""
    good = [sample for sample in samples if not sample.error]
    return Summary(
        requests=len(samples),
        errors=dict(Counter(sample.error for sample in samples if sample.error)),
        seconds=seconds,
        requests_per_second=len(good) / seconds,
        tokens_per_second=sum(sample.tokens for sample in good) / seconds,
        latency=Times.of([sample.ended - sample.due for sample in good]),
        first_token=Times.of([sample.pieces[0] - sample.due for sample in good if sample.pieces]),
        inter_token=Times.of([later - sooner for sample in good for sooner, later in pairwise(sample.pieces)]),
    )


def latencies(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Percentiles from 0 to 100, and the latency of successful responses at each, in milliseconds."""
    seconds = [sample.ended - sample.due for sample in samples if not sample.error]
    places = np.linspace(0, 100, 101)
    return (places.tolist(), (np.percentile(seconds, places) * 1000).tolist()) if seconds else ([], [])
