"""Exports how a search gets on: its trials by state, their time, its best value so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.export import Exporter


def state(trial: Any) -> str:
    """One of `of_tuning.TRIAL_STATES`, of a trial of Ray Tune."""
    if trial.status == Trial.TERMINATED:
        return ended_well(trial)
    return {Trial.RUNNING: "running", Trial.ERROR: "failed"}.get(trial.status, "waiting")


def ended_well(trial: Any) -> str:
    """`finished`, or `stopped` by the scheduler."""
    return "finished" if (trial.last_result or {}).get("progress", 0) >= 100 else "stopped"


def best_value(trials: Iterable[Any], metric: str, mode: str) -> float | None:
    """The best metric of the last validations of trials that have not failed; None if there is no finite one."""
    last = (trial.last_result or {} for trial in trials if trial.status != Trial.ERROR)
    finite = [value for value in (result.get(metric, math.nan) for result in last) if math.isfinite(value)]
    return (min if mode == "min" else max)(finite, default=None)


class SearchMetrics(tune.Callback):
    """Ray Tune's callback in the driver that passes the metrics of a search to `exporter`."""

    def __init__(
        self, exporter: Exporter, labels: Mapping[str, str], trials: int, concurrent: int, metric: str, mode: str
    ) -> None:
        """`labels` has `model` and `search`; `metric` is the best where it is `min` or `max`, as `mode` says."""
        self._exporter, self._labels = exporter, labels
        self._trials, self._concurrent = trials, concurrent
        self._metric, self._mode = metric, mode
        exporter.begin(of_tuning.METRICS, labels)
        self._tell([])

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its callbacks, and an exporter cannot be; nothing is restored from that here."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Exports the states of the trials, and the best value."""
        self._tell(trials)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Exports how the search ended."""
        self._tell(trials)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Adds the seconds since the trial's validation before."""
        self._exporter.add(of_tuning.BUSY_SECONDS, result["time_this_iter_s"], self._labels)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Exports the seconds of a trial that finished or was stopped."""
        self._ended(trial, ended_well(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Exports the seconds of a trial that failed."""
        self._ended(trial, "failed")

    def _ended(self, trial: Any, state: str) -> None:
        seconds = (trial.last_result or {}).get("time_total_s", 0.0)
        self._exporter.add(of_tuning.TRIAL_SECONDS, seconds, {**self._labels, "state": state})

    def _tell(self, trials: list[Any]) -> None:
        counts = Counter(map(state, trials))
        counts["waiting"] += self._trials - len(trials)
        for name in of_tuning.TRIAL_STATES:
            self._exporter.add(of_tuning.TRIALS, counts[name], {**self._labels, "state": name})
        left = counts["waiting"] + counts["running"]
        self._exporter.add(of_tuning.GANGS_WANTED, min(self._concurrent, left), self._labels)
        best = best_value(trials, self._metric, self._mode)
        if best is not None:
            self._exporter.add(of_tuning.BEST, best, {**self._labels, "metric": self._metric})
