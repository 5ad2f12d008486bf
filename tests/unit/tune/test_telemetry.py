"""What a search exports of its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.export import Exporter
from heliostat.infra.metrics.metric import Metric
from heliostat.tune.state import SearchState
from heliostat.tune.telemetry import SearchMetrics
from heliostat.tune.trials import Objective, Score, Trial

LABELS = {"model": "m", "search": "s1"}


class Recorded:
    """The last value of a gauge, and the sum of a counter, for each metric and the labels beside `LABELS`."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}

    def __call__(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert labels.items() >= LABELS.items()
        key = metric.name, "".join(value for name, value in labels.items() if name not in LABELS)
        self.values[key] = value + (self.values.get(key, 0) if metric.kind == "counter" else 0)

    def of(self, metric: Metric) -> dict[str, float]:
        return {label: value for (name, label), value in self.values.items() if name == metric.name}


def trial(number: int, until: float, *scores: tuple[float, float], error: str | None = None) -> Trial:
    return Trial(number, {}, until, tuple(Score(share, 1, {"loss": loss}, 2.0) for share, loss in scores), error)


def update(*states: SearchState, most_gangs: int = 2) -> Recorded:
    recorded = Recorded()
    exporter = Exporter(recorded, seconds=3600)
    metrics = SearchMetrics(exporter, LABELS, most_gangs)
    for state in states:
        metrics.update(state)
    exporter.flush()
    exporter.close()
    return recorded


def state(*trials: Trial, running: tuple[int, ...] = (), wanted: int = 8) -> SearchState:
    return SearchState("s1", (Objective("loss", "min"),), trials, running, wanted=wanted)


def test_each_trial_is_in_one_state_and_those_to_come_wait() -> None:
    trials = (
        trial(0, 1.0, (0.5, 2.0), (1.0, 1.0)),
        trial(1, 0.5, (0.5, 3.0)),
        trial(2, 0.5),
        trial(3, 0.5),
        trial(4, 0.5, error="no"),
    )
    found = update(state(*trials, running=(2,))).of(of_tuning.TRIALS)
    assert found == {"waiting": 4, "running": 1, "paused": 1, "finished": 1, "stopped": 0, "failed": 1}
    assert set(found) == set(of_tuning.TRIAL_STATES)


def test_the_best_value_is_that_of_the_best_trial_and_none_before_there_is_one() -> None:
    assert update(state(trial(0, 1.0))).of(of_tuning.BEST) == {}
    assert update(state(trial(0, 1.0, (0.5, math.nan)))).of(of_tuning.BEST) == {}
    early, far = trial(0, 0.5, (0.5, 0.1)), trial(1, 1.0, (0.5, 0.4), (1.0, 0.6))
    assert update(state(early, far)).of(of_tuning.BEST) == {"loss": 0.4}


def test_seconds_are_counted_once() -> None:
    first, second = trial(0, 1.0, (0.5, 2.0)), trial(0, 1.0, (0.5, 2.0), (1.0, 1.0))
    recorded = update(state(first, running=(0,)), state(first, running=(0,)), state(second), state(second))
    assert sum(recorded.of(of_tuning.BUSY_SECONDS).values()) == 4.0
    assert recorded.of(of_tuning.TRIAL_SECONDS)["finished"] == 4.0


def test_a_trial_that_fails_after_its_last_validation_tells_its_seconds_too() -> None:
    bad = trial(0, 1.0, (0.5, math.nan))
    recorded = update(state(bad, running=(0,)), state(replace(bad, error="loss: not finite at step 1")))
    assert recorded.of(of_tuning.TRIAL_SECONDS) == {"failed": 2.0}
    assert recorded.of(of_tuning.BUSY_SECONDS) == {"": 2.0}
    never = update(state(trial(0, 1.0, error="out of memory")))
    assert never.of(of_tuning.TRIAL_SECONDS) == {"failed": 0.0}


def test_a_search_begins_with_trials_that_wait() -> None:
    recorded = update(state(wanted=4))
    assert recorded.of(of_tuning.TRIALS) == dict.fromkeys(of_tuning.TRIAL_STATES, 0) | {"waiting": 4}
    assert recorded.of(of_tuning.GANGS_WANTED) == {"": 2}
    assert recorded.of(of_tuning.BUSY_SECONDS) == {"": 0}


def test_as_many_gangs_are_wanted_as_there_is_work() -> None:
    assert sum(update(state(wanted=8)).of(of_tuning.GANGS_WANTED).values()) == 2
    assert sum(update(state(trial(0, 1.0), running=(0,), wanted=1)).of(of_tuning.GANGS_WANTED).values()) == 1
    done = trial(0, 1.0, (1.0, 1.0))
    assert sum(update(state(done, wanted=1)).of(of_tuning.GANGS_WANTED).values()) == 0


def test_the_best_value_of_a_configuration_with_several_runs_is_their_mean() -> None:
    runs = (trial(0, 1.0, (1.0, 0.4)), replace(trial(1, 1.0, (1.0, 0.8)), values={"train.seed": 1}, repeats=0))
    assert update(state(*runs)).of(of_tuning.BEST) == {"loss": pytest.approx(0.6)}
