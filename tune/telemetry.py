"""Exports how a search gets on: its trials by state, their time, its best value so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.export import Exporter
from heliostat.tune.ranking import best_first, outcome
from heliostat.tune.state import SearchState


class SearchMetrics:
    """Passes the metrics of a search to `exporter`, in the driver's process."""

    def __init__(self, exporter: Exporter, labels: Mapping[str, str], most_gangs: int) -> None:
        """`labels` has `model` and `search`."""
        self._exporter, self._labels, self._most_gangs = exporter, labels, most_gangs
        self._busy: dict[int, float] = {}
        exporter.begin(of_tuning.METRICS, labels)

    def update(self, state: SearchState) -> None:
        """Exports the states of the trials, their time and the best value."""
        counts = Counter(_state(state, trial.number) for trial in state.trials)
        counts["waiting"] += max(0, state.wanted - len(state.trials))
        for name in of_tuning.TRIAL_STATES:
            self._exporter.add(of_tuning.TRIALS, counts[name], {**self._labels, "state": name})
        left = counts["waiting"] + counts["running"]
        self._exporter.add(of_tuning.GANGS_WANTED, min(self._most_gangs, left), self._labels)
        for trial in state.trials:
            self._add_seconds(state, trial.number, sum(score.seconds for score in trial.scores))
        best = next(iter(best_first(state.trials, state.objectives)), None)
        value = state.objective.best(best) if best else math.nan
        if math.isfinite(value):
            self._exporter.add(of_tuning.BEST, value, {**self._labels, "metric": state.objective.metric})

    def _add_seconds(self, state: SearchState, number: int, seconds: float) -> None:
        new = seconds - self._busy.get(number, 0.0)
        self._busy[number] = seconds
        if new > 0:
            self._exporter.add(of_tuning.BUSY_SECONDS, new, self._labels)
        if new > 0 and (ended := _state(state, number)) in ("finished", "stopped", "failed", "paused"):
            self._exporter.add(of_tuning.TRIAL_SECONDS, seconds, {**self._labels, "state": ended})


def _state(state: SearchState, number: int) -> str:
    """One of `of_tuning.TRIAL_STATES`."""
    found = outcome(state.trials[number], state.running)
    return "running" if found == "training" else found
