from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from heliostat.cluster.doctor.nodes import cluster
from heliostat.cluster.doctor.nodes.cluster import Missing, ask, name_of, offset_seconds, one_line


def test_nodes_at_one_address_are_told_apart() -> None:
    assert name_of("10.0.0.1", "abcdef0123", ["10.0.0.1", "10.0.0.2"]) == "10.0.0.1"
    assert name_of("10.0.0.1", "abcdef0123", ["10.0.0.1", "10.0.0.1"]) == "10.0.0.1 (abcdef)"


def test_answers_that_do_not_come_are_missing_beside_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(call: str, timeout: float) -> str:
        if call == "dies":
            raise RayTaskError("all_reduce", "Traceback…\n  File x", ValueError("no route to host\nmore"))
        return call

    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (["well", "dies"], ["late"]))
    monkeypatch.setattr(ray, "get", get)
    assert ask({"a": "well", "b": "dies", "c": "late"}, 7) == {
        "a": "well",
        "b": Missing("ValueError: no route to host"),
        "c": Missing("no answer in 7 s"),
    }
    assert ask({}) == {}


def test_errors_become_a_line() -> None:
    assert one_line(RuntimeError("\n  the node is gone  \nits address: x")) == "the node is gone"
    assert one_line(RuntimeError("")) == "RuntimeError"
    assert len(one_line(RuntimeError("x" * 999))) == 200


class Clock:
    """A node whose clock is `ahead`; each question takes the next of `trips` seconds, half of it on the way there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ahead: float, trips: list[float]) -> None:
        self.now, self.ahead, self.trips = 1000.0, ahead, trips
        self.clock = SimpleNamespace(remote=lambda: None)
        time = SimpleNamespace(time=lambda: self.now, perf_counter=lambda: self.now)
        monkeypatch.setattr(cluster, "time", time)
        monkeypatch.setattr(ray, "get", self.get)

    def get(self, call: Any, timeout: float) -> float:
        if not self.trips:
            raise GetTimeoutError("late")
        trip = self.trips.pop(0)
        self.now += trip / 2
        there = self.now + self.ahead
        self.now += trip / 2
        return there


def test_a_clock_is_read_by_the_shortest_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offset_seconds(Clock(monkeypatch, 30.0, [4.0, 0.5, 2.0, 1.0, 1.0])) == pytest.approx((30.0, 0.25))


def test_a_clock_that_stops_answering_is_told_by_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offset_seconds(Clock(monkeypatch, -3.0, [0.5])) == pytest.approx((-3.0, 0.25))
    assert offset_seconds(Clock(monkeypatch, -3.0, [])) is None
