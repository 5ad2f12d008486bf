"""Searches with real gangs: what happens to workers and drivers changes neither results nor what is left over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from heliostat.cluster.session.leftovers import leftovers
from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, sessions
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.tune import make_plan
from heliostat.spec import Spec, load_spec
from heliostat.tune import gang as gangs
from heliostat.tune.driver import Driver
from heliostat.tune.ranking import outcome
from heliostat.tune.search import Plan, Search, search
from heliostat.view.terminal import View
from tests.waiting import until

QUIET = View(Console(quiet=True))
SETTINGS = (
    "train.workers=1",
    "train.epochs=8",
    "tune.trials=4",
    "tune.epochs=8",
    "tune.lag=1",
    "cluster.address=null",
)


@contextmanager
def known(folder: Path, *settings: str) -> Iterator[tuple[Spec, Callable[[str], Plan]]]:
    """A Ray, and searches of the table of tumours by name."""
    spec = load_spec("tabular", [*SETTINGS, f"storage.url={folder}", *settings])
    with sessions.session(spec):
        prepared = prepare.run(spec, QUIET)
        yield spec, lambda name: make_plan(spec, prepared, TrialJobs(spec, name, prepared), name)


def told(found: Search) -> list[Any]:
    """What is known of trials, times apart; NaN-free."""
    return [
        (one.values, one.error, [(score.share, score.step, score.metrics) for score in one.scores])
        for one in found.trials
    ]


def worker_processes() -> list[psutil.Process]:
    """Of gangs, by what Ray calls them."""
    me = psutil.Process()
    return [one for one in me.children(recursive=True) if one.name().startswith("ray::Member")]


class Unlucky:
    """Kills the worker of the first gang that has trained something, and suspends the next one's."""

    def __init__(self) -> None:
        self.hit: list[int] = []

    def __call__(self, driver: Driver) -> None:
        done = sum(len(trial.scores) for trial in driver.trials())
        if done < (1, 4, 1000)[len(self.hit)]:
            return
        process = next((one for one in worker_processes() if one.pid not in self.hit), None)
        if process:
            os.kill(process.pid, (signal.SIGKILL, signal.SIGSTOP)[len(self.hit)])
            self.hit.append(process.pid)


def test_lost_and_suspended_workers_change_no_result_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gangs, "STILL_SECONDS", 5.0)
    monkeypatch.setattr(gangs, "WATCH_SECONDS", 1.0)
    with known(tmp_path) as (spec, plan):
        store, unlucky = open_store(spec.storage), Unlucky()
        alone = search(plan("alone"), store, lambda _: None)
        disturbed = search(plan("disturbed"), store, unlucky)
        assert len(unlucky.hit) == 2
        assert told(disturbed) == told(alone)  # bit for bit: warm workers and new ones, with dropout
        assert "finished" in {outcome(trial) for trial in alone.trials}
        assert not [trial.error for trial in alone.trials if trial.error]
        until(lambda: leftovers(patience_seconds=1) == [], "nothing of ours is left in Ray", 30)
        until(lambda: worker_processes() == [], "no worker is left", 30)


def test_trials_of_one_worker_share_a_gpu(tmp_path: Path) -> None:
    """Placement alone: Ray is told of a GPU that is not there."""
    side_by_side: list[int] = []

    def on_change(driver: Driver) -> None:
        side_by_side.append(sum(gang.is_up for gang in driver._gangs))

    settings = ("cluster.num_gpus=1", "train.use_gpu=true", "tune.gpus_per_trial=0.5")
    with known(tmp_path, *settings) as (spec, plan):
        found = search(plan("shared"), open_store(spec.storage), on_change)
    assert max(side_by_side) == 2
    assert not [trial.error for trial in found.trials if trial.error]
