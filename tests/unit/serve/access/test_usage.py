"""Usage of keys that several replicas share."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from heliostat.serve.access.usage import REQUESTS, TOKENS, Report, SlidingWindow, UsageCounter, UsageLedger

SHOP = ("shop", REQUESTS)


class Clock:
    """Seconds since whenever."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Replicas:
    """Some replicas and their ledger, each with a clock that was started at another time."""

    def __init__(self, count: int) -> None:
        self.clocks = [Clock(1000.0 * number + 20) for number in range(count + 1)]
        self.counters = [UsageCounter(clock) for clock in self.clocks[1:]]
        self.ledger = UsageLedger(self.clocks[0])

    def share(self, *numbers: int) -> None:
        for number in numbers or range(len(self.counters)):
            self.counters[number].share(partial(self.ledger.exchange, ""))

    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now += seconds

    def used(self, use: tuple[str, str] = SHOP) -> list[int]:
        return [counter.used(use) for counter in self.counters]


def test_replicas_know_of_each_other_after_they_shared() -> None:
    replicas = Replicas(2)
    replicas.counters[0].add(SHOP, 3)
    replicas.counters[1].add(SHOP, 4)
    replicas.counters[1].add(("shop", TOKENS), 10)
    assert replicas.used() == [3, 4]
    replicas.share()
    replicas.share()
    assert replicas.used() == [7, 7]
    assert replicas.used(("shop", TOKENS)) == [10, 10]


@pytest.mark.parametrize("ahead", [20.0, -20.0, 1e6])
def test_clocks_that_disagree_let_no_more_through(ahead: float) -> None:
    replicas = Replicas(4)
    replicas.clocks[1].now += ahead
    passed = 0
    for _ in range(600):
        for counter in replicas.counters:
            if counter.used(SHOP) < 60:
                counter.add(SHOP)
                passed += 1
                replicas.share()
                replicas.share()
        replicas.wait(0.09)
    assert passed == 60


def test_what_is_counted_is_gone_after_a_minute_everywhere() -> None:
    replicas = Replicas(2)
    replicas.counters[0].add(SHOP)
    replicas.share()
    replicas.wait(59)
    assert replicas.used() == [1, 1]
    replicas.wait(1)
    assert replicas.used()[0] == 0
    replicas.wait(1)  # of others, seconds are rounded up
    assert replicas.used() == [0, 0]
    replicas.share()
    assert replicas.used() == [0, 0]


def test_a_report_that_is_late_repeated_or_lost_changes_nothing() -> None:
    replicas = Replicas(2)
    sent: list[tuple[str, int, Report]] = []

    def lost(replica: str, number: int, report: Report) -> Report:
        sent.append((replica, number, report))
        raise TimeoutError

    def answered_too_late(*args: Any) -> Report:
        replicas.ledger.exchange("", *args)
        raise TimeoutError

    first = replicas.counters[0]
    for exchange in (lost, answered_too_late, lost, answered_too_late):
        first.add(SHOP)
        with pytest.raises(TimeoutError):
            first.share(exchange)
    replicas.share(1)
    assert replicas.used() == [4, 4]
    for report in sent:
        replicas.ledger.exchange("", *report)
    replicas.share()
    assert replicas.used() == [4, 4]


def test_a_ledger_that_starts_anew_knows_all_after_the_next_reports() -> None:
    replicas = Replicas(3)
    for counter in replicas.counters:
        counter.add(SHOP, 5)
    replicas.share()
    replicas.ledger = UsageLedger(replicas.clocks[0])
    replicas.share()
    replicas.share()
    assert replicas.used() == [15, 15, 15]


def test_what_a_replica_that_is_gone_counted_stays_for_its_minute() -> None:
    replicas = Replicas(2)
    replicas.counters[0].add(SHOP, 5)
    replicas.share()
    del replicas.counters[0]
    replicas.wait(58)
    replicas.share()
    assert replicas.used() == [5]
    replicas.wait(3)
    replicas.share()
    assert replicas.used() == [0]
    assert not replicas.ledger.is_idle(60)
    replicas.wait(60)
    assert replicas.ledger.is_idle(60)


def test_what_is_given_back_never_makes_room_for_more_than_the_limit() -> None:
    clock = Clock()
    counter = UsageCounter(clock)
    bucket = counter.add(SHOP, 50)
    clock.now = 59.5
    counter.give_back(bucket, 45)
    assert counter.used(SHOP) == 5
    clock.now = 60
    assert counter.used(SHOP) == 0


def test_the_seconds_to_wait_are_those_until_there_is_room() -> None:
    clock = Clock()
    counter = UsageCounter(clock)
    for seconds, count in ((0, 10), (20, 10), (40, 10)):
        clock.now = seconds
        counter.add(SHOP, count)
    assert [counter.seconds_until(SHOP, most) for most in (30, 29, 20, 19, 0)] == [0, 20, 20, 40, 60]


def test_a_window_keeps_a_number_for_each_second_at_most() -> None:
    window = SlidingWindow()
    for step in range(100_000):
        window.add(step / 1000, 1)
    assert len(window.buckets(100.0)) <= 62
    assert sum(bucket.count for bucket in window.buckets(100.0)) >= 60_000
