"""Population based training with real workers: a search loses nothing, and `train` repeats what it has found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, sessions, train
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.trial_spec import with_values
from heliostat.pipeline.tune import make_plan
from heliostat.results import TrainingResult
from heliostat.spec import Spec, load_spec
from heliostat.tune.driver import Driver
from heliostat.tune.lineage import schedule
from heliostat.tune.search import Search, search
from heliostat.tune.trials import Trial
from heliostat.view.terminal import View
from tests.integration.test_search import told, worker_processes

QUIET = View(Console(quiet=True))
SETTINGS = (
    "train.workers=1",
    "train.epochs=6",
    "tune.space={learning_rate: {loguniform: [1e-4, 3e-2]}, weight_decay: {choice: [0.0, 0.1, 3.0]}}",
    "tune.scheduler=pbt",
    "tune.trials=4",
    "tune.epochs=6",
    "tune.lag=1",
    "cluster.address=null",
)


class KilledError(Exception):
    """The driver ends here."""


class Unlucky:
    """Kills a worker once something was taken over, then the driver."""

    def __init__(self) -> None:
        self.hits = 0

    def __call__(self, driver: Driver) -> None:
        taken = sum(work.origin is not None for work in driver.decisions.works)
        if self.hits == 0 and taken and worker_processes():
            self.hits = 1
            os.kill(worker_processes()[0].pid, signal.SIGKILL)
        elif self.hits == 1 and taken > 1:
            self.hits = 2
            raise KilledError


class Found(NamedTuple):
    spec: Spec
    alone: Search
    disturbed: Search
    changed: Trial
    repeated: TrainingResult


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """A search left alone, one whose worker and driver are killed, and a run with the schedule of one of its trials."""
    spec = load_spec("tabular", [*SETTINGS, f"storage.url={tmp_path_factory.mktemp('storage')}"])
    with sessions.session(spec):
        prepared, store = prepare.run(spec, QUIET), open_store(spec.storage)

        def once(name: str, on_change: Any) -> Search:
            return search(make_plan(spec, prepared, TrialJobs(spec, name, prepared), name), store, on_change)

        alone = once("alone", lambda _: None)
        with pytest.raises(KilledError):
            once("disturbed", Unlucky())
        disturbed = once("disturbed", lambda _: None)
        changed = max(alone.trials, key=lambda trial: len(schedule(alone.trials, trial.number)))
        winner = with_values(spec, changed.values, schedule(alone.trials, changed.number))
        yield Found(spec, alone, disturbed, changed, train.run(winner, prepared, QUIET, "repeated"))


def test_a_search_whose_worker_and_driver_were_killed_ends_as_one_left_alone(found: Found) -> None:
    assert told(found.disturbed) == told(found.alone)
    assert [trial.past for trial in found.disturbed.trials] == [trial.past for trial in found.alone.trials]
    assert all(trial.share == 1 and not trial.error for trial in found.alone.trials)


def test_train_repeats_the_schedule_of_a_trial_bit_for_bit(found: Found) -> None:
    assert len(schedule(found.alone.trials, found.changed.number)) > 1
    last = found.changed.scores[-1]
    repeated = {name: values[last.step] for name, values in found.repeated.curves.items() if last.step in values}
    assert repeated["validation/loss"] == last.metrics["loss"]
    assert repeated["validation/accuracy"] == last.metrics["accuracy"]


def test_the_schedule_matters(found: Found) -> None:
    one = schedule(found.alone.trials, found.changed.number)
    assert one[0][1]["learning_rate"] != pytest.approx(one[-1][1]["learning_rate"], rel=0.1)
