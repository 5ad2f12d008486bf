"""What a search exports of its trials."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.infra.metrics import of_tuning
from heliostat.infra.metrics.export import Exporter
from heliostat.infra.metrics.metric import Metric
from heliostat.tune.telemetry import SearchMetrics, best_value, state

LABELS = {"model": "m", "search": "s1"}


@dataclass
class FakeTrial:
    """A trial of Ray Tune, as far as it is looked at."""

    status: str
    last_result: dict[str, Any] = field(default_factory=dict)


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


def ended(progress: int, loss: float, seconds: float = 1.0) -> FakeTrial:
    return FakeTrial("TERMINATED", {"progress": progress, "loss": loss, "time_total_s": seconds})


def observed(trials: int = 4, concurrent: int = 2) -> tuple[SearchMetrics, Exporter, Recorded]:
    recorded = Recorded()
    exporter = Exporter(recorded, seconds=3600)
    return SearchMetrics(exporter, LABELS, trials, concurrent, "loss", "min"), exporter, recorded


def test_a_trial_is_in_one_state() -> None:
    trials = [ended(100, 1.0), ended(25, 1.0), *map(FakeTrial, ("RUNNING", "ERROR", "PENDING", "PAUSED"))]
    assert list(map(state, trials)) == ["finished", "stopped", "running", "failed", "waiting", "waiting"]
    assert {*map(state, trials)} == set(of_tuning.TRIAL_STATES)


def test_the_best_value_is_finite_and_of_a_trial_that_did_not_fail() -> None:
    failed = FakeTrial("ERROR", {"loss": 0.1})
    trials = [ended(100, 2.0), ended(25, 1.0), ended(25, math.nan), failed, FakeTrial("PENDING")]
    assert best_value(trials, "loss", "min") == 1.0
    assert best_value(trials, "loss", "max") == 2.0
    assert best_value([failed, FakeTrial("RUNNING")], "loss", "min") is None


def test_a_search_begins_with_trials_that_wait_and_ends_with_none() -> None:
    metrics, exporter, recorded = observed()
    exporter.flush()
    assert recorded.of(of_tuning.TRIALS) == {"waiting": 4, "running": 0, "finished": 0, "stopped": 0, "failed": 0}
    assert recorded.of(of_tuning.GANGS_WANTED) == {"": 2}
    assert recorded.of(of_tuning.BUSY_SECONDS) == {"": 0}
    assert recorded.of(of_tuning.BEST) == {}
    metrics.on_step_end(1, [ended(100, 2.0), FakeTrial("RUNNING"), FakeTrial("PENDING")])
    exporter.flush()
    assert recorded.of(of_tuning.TRIALS) == {"waiting": 2, "running": 1, "finished": 1, "stopped": 0, "failed": 0}
    metrics.on_experiment_end([ended(100, 2.0), ended(100, 1.0), ended(50, 3.0), FakeTrial("ERROR")])
    exporter.close()
    assert recorded.of(of_tuning.TRIALS) == {"waiting": 0, "running": 0, "finished": 2, "stopped": 1, "failed": 1}
    assert recorded.of(of_tuning.GANGS_WANTED) == {"": 0}
    assert recorded.of(of_tuning.BEST) == {"loss": 1.0}


def test_seconds_of_validations_add_up_and_those_of_a_trial_are_told_at_its_end() -> None:
    metrics, exporter, recorded = observed()
    for seconds in (1.5, 0.5):
        metrics.on_trial_result(1, [], FakeTrial("RUNNING"), {"time_this_iter_s": seconds})
    metrics.on_trial_complete(1, [], ended(100, 1.0, seconds=2.0))
    metrics.on_trial_complete(1, [], ended(25, 1.0, seconds=0.5))
    metrics.on_trial_error(1, [], FakeTrial("ERROR"))
    exporter.close()
    assert recorded.of(of_tuning.BUSY_SECONDS) == {"": 2.0}
    assert recorded.of(of_tuning.TRIAL_SECONDS) == {"finished": 2.0, "stopped": 0.5, "failed": 0.0}


def test_ray_tune_can_pickle_it() -> None:
    metrics, exporter, _ = observed()
    assert isinstance(pickle.loads(pickle.dumps(metrics)), SearchMetrics)
    exporter.close()
