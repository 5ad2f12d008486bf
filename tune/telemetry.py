"""Exports how a search gets on: its trials by state, their time, its best value so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.export import Exporter
from heliostat.tune.choice import choose
from heliostat.tune.ranking import outcome
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Trial


class SearchMetrics:
    """Passes the metrics of a search to `exporter`, in the driver's process."""

    def __init__(self, exporter: Exporter, labels: Mapping[str, str], most_gangs: int) -> None:
        """`labels` has `model` and `search`."""
        self._exporter, self._labels, self._most_gangs = exporter, labels, most_gangs
        self._known: dict[int, tuple[Trial, str]] = {}
        exporter.begin(of_tuning.METRICS, labels)

    def update(self, state: SearchState) -> None:
        """Exports the states of the trials, their time and the best value."""
        states = {trial.number: _state(state, trial) for trial in state.trials}
        counts = Counter(states.values())
        counts["waiting"] += max(0, state.wanted - len(state.trials))
        for name in of_tuning.TRIAL_STATES:
            self._exporter.add(of_tuning.TRIALS, counts[name], {**self._labels, "state": name})
        left = counts["waiting"] + counts["running"]
        self._exporter.add(of_tuning.GANGS_WANTED, min(self._most_gangs, left), self._labels)
        for trial in state.trials:
            if (known := (trial, states[trial.number])) != self._known.get(trial.number):
                self._add_seconds(*known)
        best = choose(state.trials, state.objectives)
        value = state.objective.best(best) if best else math.nan
        if math.isfinite(value):
            self._exporter.add(of_tuning.BEST, value, {**self._labels, "metric": state.objective.metric})

    def _add_seconds(self, trial: Trial, state: str) -> None:
        """Adds what is new of a trial's time; exports all of it once the trial has come to rest."""
        before, _ = self._known.get(trial.number, (None, ""))
        self._known[trial.number] = (trial, state)
        seconds = _seconds(trial)
        self._exporter.add(of_tuning.BUSY_SECONDS, seconds - (_seconds(before) if before else 0.0), self._labels)
        if state not in ("waiting", "running"):
            self._exporter.add(of_tuning.TRIAL_SECONDS, seconds, {**self._labels, "state": state})


def _seconds(trial: Trial) -> float:
    return sum(score.seconds for score in trial.scores)


def _state(state: SearchState, trial: Trial) -> str:
    """One of `of_tuning.TRIAL_STATES`."""
    found = outcome(trial, state.running)
    return "running" if found == "training" else found
