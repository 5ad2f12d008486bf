"""The actor that adds up what the replicas of an experiment report, compares the versions, and ends the experiment."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from heliostat.cluster.session.session import NAMESPACE
from heliostat.infra import log
from heliostat.infra.alerts.objectives import QUANTILES
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.stats import Arm, compare_errors, compare_slow, compare_times

BASELINE, CANDIDATE = "baseline", "candidate"
Arms = dict[str, Arm]
FLOOR_SECONDS = 0.005
"""Smaller slowdowns are ignored: requests to the candidate take one network hop more."""
_log = log.get(__name__)


def find_coordinator(name: str) -> Any:
    """The coordinator actor of an endpoint's experiment; None if there is none."""
    import ray

    with suppress(ValueError):
        return ray.get_actor(_actor_name(name), namespace=NAMESPACE)
    return None


def start_coordinator(name: str, experiment: Experiment, end: Callable[[str], object]) -> None:
    """Starts the coordinator as a detached actor, which outlives its creator; `end(name)` ends the experiment."""
    import ray

    options = {"name": _actor_name(name), "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": -1}
    ray.remote(num_cpus=0, **options)(Coordinator).remote(name, experiment.model_dump(mode="json"), end)


def _actor_name(name: str) -> str:
    return f"heliostat-experiment-{name}"


def new_arms() -> Arms:
    """Empty statistics of both versions."""
    return {BASELINE: Arm(), CANDIDATE: Arm()}


@dataclass(frozen=True)
class ExperimentStatus:
    """Status of an experiment."""

    name: str
    experiment: Experiment
    started: datetime
    arms: Arms
    verdict: str | None
    """Why the candidate gets no more requests; None while it gets some."""


class Coordinator:
    """The coordinator actor: replicas call `report` each second, commands call `status`."""

    def __init__(self, name: str, experiment: dict[str, Any], end: Callable[[str], object]) -> None:
        self._name = name
        self._end = end
        self._experiment = Experiment.model_validate(experiment)
        self._started = datetime.now(timezone.utc)
        self._arms = new_arms()
        self._verdict: str | None = None

    def report(self, reported: Arms) -> bool:
        """Adds the statistics of one replica; returns whether the candidate should still get requests."""
        for which, arm in reported.items():
            self._arms[which].merge(arm)
        if self._verdict is None and self._experiment.guarded:
            self._verdict = verdict(self._experiment, self._arms)
            if self._verdict:
                _log.warning("%s: %s", self._name, self._verdict)
                threading.Thread(target=self._take_away, daemon=True).start()
        return self._verdict is None

    def status(self) -> ExperimentStatus:
        """The status so far."""
        return ExperimentStatus(self._name, self._experiment, self._started, self._arms, self._verdict)

    def _take_away(self) -> None:
        try:
            self._end(self._name)
        except Exception:
            _log.exception("%s: the candidate gets no more requests, but is still there", self._name)


def verdict(experiment: Experiment, arms: Arms) -> str | None:
    """One line that says why the candidate is to be removed; None if there is no reason (yet)."""
    baseline, candidate = arms[BASELINE], arms[CANDIDATE]
    errors, times = compare_errors(baseline, candidate), compare_times(baseline, candidate)
    if errors and errors.low > 1 - experiment.objectives.availability:
        return (
            f"version {experiment.candidate} failed {candidate.errors} of {candidate.requests} requests, "
            f"version {experiment.baseline} {baseline.errors} of {baseline.requests}: rolled back"
        )
    before, after = math.exp(baseline.log_seconds.mean), math.exp(candidate.log_seconds.mean)
    if times and times.low > math.log(experiment.max_slowdown) and after - before > FLOOR_SECONDS:
        return (
            f"version {experiment.candidate} takes {after * 1000:.1f} ms to its first byte, "
            f"version {experiment.baseline} {before * 1000:.1f} ms (geometric means): rolled back"
        )
    return next(broken_promises(experiment, baseline, candidate), None)


def broken_promises(experiment: Experiment, baseline: Arm, candidate: Arm) -> Iterator[str]:
    """A line for each promise of latency that the candidate breaks, where more of its answers are late.

    An answer whose first byte is late is late: the last byte, which the promise is about, comes no earlier.
    """
    for quantile, seconds in experiment.objectives.latency_seconds.items():
        allowed, late = 1 - QUANTILES[quantile], candidate.slower_moments(seconds).mean
        slower = compare_slow(baseline, candidate, seconds)
        if slower and slower.low > 0 and late > allowed:
            yield (
                f"version {experiment.candidate} takes over {seconds:g} s for {late:.1%} of its answers, version "
                f"{experiment.baseline} for {baseline.slower_moments(seconds).mean:.1%}, and "
                f"serve.objectives.latency_seconds.{quantile} allows {allowed:.0%}: rolled back"
            )
