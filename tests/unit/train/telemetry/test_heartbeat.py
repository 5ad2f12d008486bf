"""Workers that hang are named, and nobody else is."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from heliostat.train.telemetry.clocks import Clocks
from heliostat.train.telemetry.heartbeat import ALL_SILENT_SECONDS, BEAT_SECONDS, Beat, Heartbeat, RankWatch
from heliostat.train.telemetry.stats import StepStats

RANKS = [Beat(0, "10.0.0.1", 70, 5), Beat(1, "10.0.0.2", 71, 5)]
POLL_SECONDS = 0.5


def begun() -> RankWatch:
    """A watch that has heard of all RANKS."""
    watch = RankWatch()
    for beat in RANKS:
        watch.beat(beat, 0)
    return watch


def watched(watch: RankWatch, until: float, *speaking: Beat, start: float = 0.0) -> list[tuple[float, str]]:
    """When a driver that polls is told what, while only `speaking` beat."""
    told = []
    for tick in range(int((until - start) / POLL_SECONDS)):
        now = start + tick * POLL_SECONDS
        if now % BEAT_SECONDS == 0:
            for beat in speaking:
                watch.beat(beat, now)
        told += [(now, line) for line in watch.changes(now)]
    return told


def test_a_worker_that_says_nothing_is_named_once_within_ten_seconds() -> None:
    ((at, line),) = watched(begun(), 60, RANKS[0])
    assert at <= 10
    assert line.startswith("rank 1 (process 71 on 10.0.0.2) has said nothing for ")
    assert line.endswith("since step 5; the other workers wait for it")


def test_workers_that_all_speak_are_not_named() -> None:
    assert watched(begun(), 60, *RANKS) == []


def test_a_worker_that_goes_on_is_told_of() -> None:
    watch = begun()
    watched(watch, 20, RANKS[0])
    lines = [line for _, line in watched(watch, 30, *RANKS, start=20)]
    assert lines == ["rank 1 (process 71 on 10.0.0.2) goes on, after 11 s"]


def test_one_line_tells_that_nobody_speaks() -> None:
    ((at, line),) = watched(begun(), 60)
    assert ALL_SILENT_SECONDS < at < ALL_SILENT_SECONDS + 2
    assert line == "every worker has said nothing for 31 s"


def test_a_worker_that_has_done_its_work_is_not_missed() -> None:
    watch = begun()
    watch.leave(1)
    assert watched(watch, 60, RANKS[0]) == []


def test_the_next_attempt_begins_anew() -> None:
    watch = begun()
    assert watched(watch, 60, replace(RANKS[0], pid=90)) == []


def test_beats_that_came_while_the_watch_stood_still_count() -> None:
    watch = begun()
    assert watch.changes(100) == []
    for beat in RANKS:
        watch.beat(beat, 100.1)
    assert watch.changes(100.5) == []


def test_a_worker_that_is_stuck_is_named_by_what_the_others_wait_for() -> None:
    late = [replace(RANKS[0], activity=2, late=11.0), replace(RANKS[1], activity=0, late=11.0)]
    ((_, line),) = watched(begun(), 60, *late)
    assert line == "rank 1 (process 71 on 10.0.0.2) holds the others up: it is collating a batch since step 5"


def test_workers_that_are_all_late_with_the_same_are_not_named() -> None:
    assert watched(begun(), 60, *(replace(beat, activity=1, late=99.0) for beat in RANKS)) == []


def test_a_heartbeat_tells_what_its_worker_does() -> None:
    told: list[Any] = []
    clocks, beaten = Clocks(), threading.Event()

    def send(beat: Beat) -> None:
        told.append(beat)
        beaten.set()

    def next_beat() -> Beat:
        beaten.clear()
        assert beaten.wait(10)
        return told[-1]  # type: ignore[no-any-return]

    heart = Heartbeat(send, 3, "10.0.0.9", clocks, seconds=0.01)
    assert (next_beat().rank, told[-1].node, told[-1].activity, told[-1].late) == (3, "10.0.0.9", 1, 0.0)
    step = {"loss": 1.0, "learning_rate": 0.1, "grad_norm": 1.0, "samples": 1, "micro_batch_size": 1, "tokens": 1}
    heart.stepped(StepStats(step=7, steps=9, seconds=0.001, **step))  # type: ignore[arg-type]
    with clocks.data:
        time.sleep(0.05)
        next_beat()
        found = next_beat()
    assert (found.step, found.activity) == (7, 0)
    assert found.late > 0
    with clocks.communication:
        next_beat()
        assert next_beat().activity == 2
    heart.close()
    count = len(told)
    time.sleep(0.05)
    assert len(told) == count


def test_a_beat_that_cannot_be_sent_is_told_of_once_and_the_next_one_is_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = iter([ConnectionError("gone"), ConnectionError("gone"), None])
    sent = threading.Event()

    def send(_: Beat) -> None:
        answer = next(answers, None)
        if answer is not None:
            raise answer
        sent.set()

    heartbeat = Heartbeat(send, 0, "10.0.0.1", Clocks(), seconds=0.01)
    assert sent.wait(timeout=30)
    heartbeat.close()
    assert capsys.readouterr().err.count("the driver is not told that this worker lives: gone") == 1
