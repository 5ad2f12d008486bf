"""A node that is to go: a checkpoint at once, another one right before it goes, and no steps after that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train

from heliostat.train.parallel.distributed import World
from heliostat.train.telemetry.notices import HOLD_SECONDS, STAYED_SECONDS, RayNotices

NOW = 1_000_000.0


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        monkeypatch.setattr("heliostat.train.telemetry.notices.time.time", lambda: self.now)
        monkeypatch.setattr("heliostat.train.telemetry.notices.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Ray says of nodes that are to go: the last item."""
    said: list[Any] = [None]
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: said[-1], raising=False)
    monkeypatch.setattr(ray, "get", lambda value: value)
    return said


def asked_of(told: str = "") -> RayNotices:
    channel = SimpleNamespace(notice=SimpleNamespace(remote=lambda: told))
    return RayNotices(World(0, 1, "cpu"), channel)


def going(seconds: float | None, node: str = "a") -> Any:
    deadline = None if seconds is None else int((NOW + seconds) * 1000)
    return SimpleNamespace(deadline_ms=deadline, node=node)


def test_a_run_saves_at_the_notice_and_again_right_before_the_deadline(clock: Clock, drained: list[Any]) -> None:
    one = asked_of()
    assert one.ask() == ""
    drained.append(going(30))
    assert [one.ask(), one.ask()] == ["save", ""]
    clock.now = NOW + 30 - HOLD_SECONDS + 0.5
    assert one.ask() == "hold"
    one.hold()
    assert clock.now == NOW + 30 + STAYED_SECONDS
    assert one.ask() == "", "the node stays: the run goes on"


def test_a_notice_that_comes_late_is_the_last_one(clock: Clock, drained: list[Any]) -> None:
    one = asked_of()
    drained.append(going(HOLD_SECONDS - 2))
    assert one.ask() == "hold"
    assert one.ask() == ""


@pytest.mark.parametrize("seconds", [None, -5])
def test_without_a_deadline_or_after_it_a_run_does_not_stand_still(
    seconds: float | None, clock: Clock, drained: list[Any]
) -> None:
    one = asked_of()
    drained.append(going(seconds))
    assert [one.ask(), one.ask()] == ["save", ""]


def test_each_node_is_saved_and_held_for(clock: Clock, drained: list[Any]) -> None:
    one = asked_of()
    drained.append(going(5, "a"))
    assert one.ask() == "hold"
    one.hold()
    drained.append(going(60, "b"))
    assert one.ask() == "save"
    clock.now = NOW + 55
    assert one.ask() == "hold"


@pytest.mark.parametrize("told", ["stop", "save"])
def test_what_the_driver_says_comes_first(told: str, clock: Clock, drained: list[Any]) -> None:
    drained.append(going(5))
    assert asked_of(told).ask() == told
