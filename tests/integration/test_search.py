"""Searches with real gangs: what happens to workers and trials changes neither results nor what is left over."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from heliostat.cluster.session.leftovers import leftovers
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, sessions
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.tune import make_plan
from heliostat.spec import Spec, load_spec
from heliostat.tune import gang as gangs
from heliostat.tune.driver import Driver
from heliostat.tune.ranking import outcome
from heliostat.tune.requests import Request, ask
from heliostat.tune.search import Plan, Search, search
from heliostat.view.terminal import View
from tests.nodes import NODE
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
    spec = load_spec("tabular", [*SETTINGS, *settings, f"storage.url={folder}"])
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


class Visitor:
    """Stops trials 3, 11 and 19, and kills the workers of 7 and 15, once they have a score; notes ports of workers."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.visited: set[int] = set()
        self.ports: set[int] = set()
        self._prefix, self._store = plan.prefix, store

    def __call__(self, driver: Driver) -> None:
        self.ports |= {port for one in worker_processes() for port in listening(one)}
        for number in {driver.decisions.works[work].trial for work in driver.running} - self.visited:
            if number % 4 == 3 and driver.trials()[number].scores:
                self.visited.add(number)
                self._visit(number)

    def _visit(self, number: int) -> None:
        if number % 8 == 3:
            ask(self._store, self._prefix, Request("stop", number))
        else:
            for process in worker_processes():
                process.kill()


def listening(process: psutil.Process) -> set[int]:
    """Ports on which it listens; none once it has ended."""
    try:
        return {one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    except psutil.NoSuchProcess:
        return set()


def is_open(port: int) -> bool:
    """Whether somebody on this machine listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex((ray.util.get_node_ip_address(), port)) == 0


def twenty() -> list[str]:
    """One trial after the other: every fourth diverges, and every fourth is long enough to be stopped or killed."""
    points = [
        {
            "learning_rate": 1e30 + number * 1e28 if number % 4 == 1 else 1e-3 + number * 1e-5,
            "epochs": 100 if number % 4 == 3 else 2,
        }
        for number in range(20)
    ]
    space = {key: {"choice": sorted({point[key] for point in points})} for key in ("learning_rate", "epochs")}
    settings = {"space": space, "points": points, "trials": 20, "scheduler": "none", "max_failures": 0, "lag": 0}
    return [f"tune.{key}={json.dumps(value)}" for key, value in settings.items()]


def test_after_twenty_trials_of_which_half_failed_or_were_stopped_or_killed_nothing_is_left(tmp_path: Path) -> None:
    with known(tmp_path, *twenty()) as (spec, plan):
        store, made = open_store(spec.storage), plan("twenty")
        visitor = Visitor(made, store)
        found = search(made, store, visitor)
        assert Counter(outcome(trial) for trial in found.trials) == {"finished": 10, "failed": 7, "stopped": 3}
        assert visitor.visited == {3, 7, 11, 15, 19}
        until(lambda: leftovers(patience_seconds=1) == [], "nothing of ours is left in Ray", 30)
        until(lambda: worker_processes() == [], "no worker is left", 30)
        assert visitor.ports
        assert not {port for port in visitor.ports if is_open(port)}
        assert list(store.list(f"{made.prefix}/requests")) == []


class NodeLoss:
    """Takes the second node away, once two trials have a score."""

    def __init__(self, cluster: Cluster, node: Any) -> None:
        self.lost: list[int] = []
        self._cluster, self._node = cluster, node

    def __call__(self, driver: Driver) -> None:
        if not self.lost and sum(bool(trial.scores) for trial in driver.trials()) >= 2:
            self.lost = [driver.decisions.works[work].trial for work in driver.running]
            self._cluster.remove_node(self._node, allow_graceful=False)


@pytest.mark.faults
def test_a_node_that_is_lost_changes_no_result(tmp_path: Path, cluster: Cluster) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    with known(tmp_path, f"cluster.address={cluster.address}", "tune.epochs=40") as (spec, plan):
        store, loss = open_store(spec.storage), NodeLoss(cluster, nodes[1])
        alone = search(plan("alone"), store, lambda _: None)
        disturbed = search(plan("disturbed"), store, loss)
        assert len(loss.lost) == 2
        assert told(disturbed) == told(alone)
        until(lambda: leftovers(patience_seconds=1) == [], "nothing of ours is left in Ray", 30)
