"""Whether what a load test measured keeps what a spec promises (`serve.objectives`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heliostat.serve.bench.target import Sample
from heliostat.serve.objectives import Objectives, Quantile


@dataclass(frozen=True)
class Verdict:
    """One objective: what was promised, and what was measured; None if nothing was."""

    objective: str
    promised: float
    measured: float | None
    is_kept: bool


def verdicts(samples: Sequence[Sample], objectives: Objectives) -> list[Verdict]:
    """Each objective against the samples. Times are those of successful requests, in seconds, exact quantiles.

    A refusal (4xx) is no fault of the endpoint; an answer that is cut, late or missing is.
    """
    faults = sum(1 for one in samples if one.error and not one.error.startswith("HTTP 4"))
    available = 1 - faults / len(samples) if samples else None
    good = [one for one in samples if not one.error]
    latencies = [one.ended - one.due for one in good]
    first_tokens = [one.pieces[0] - one.due for one in good if one.pieces]
    return [
        Verdict("availability", objectives.availability, available, (available or 0) >= objectives.availability),
        *_of_times("latency_seconds", latencies, objectives.latency_seconds),
        *_of_times("first_token_seconds", first_tokens, objectives.first_token_seconds),
    ]


def _of_times(name: str, seconds: Sequence[float], promised: Mapping[Quantile, float]) -> Iterator[Verdict]:
    for quantile, most in promised.items():
        measured = float(np.percentile(seconds, float(quantile[1:]))) if seconds else None
        yield Verdict(f"{name}.{quantile}", most, measured, measured is not None and measured <= most)
