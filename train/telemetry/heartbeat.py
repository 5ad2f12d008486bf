"""Heartbeats: each worker tells its driver that it lives and what it does, so that one that hangs is named.

A worker that is stopped, swapped out or cut off says nothing. One that is stuck in its own work says so while the
others wait for it in a collective operation, which alone would show only that all of them stand still.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliostat.infra import log

if TYPE_CHECKING:
    from heliostat.train.telemetry.clocks import Clocks
    from heliostat.train.telemetry.stats import StepStats

BEAT_SECONDS = 2.0
SILENT_SECONDS = 8.0
"""A worker is silent after that long, if another one is not."""
ALL_SILENT_SECONDS = 30.0
"""All workers are silent after that long: between two attempts of a run, nobody beats for a while."""
LATE_SECONDS = 10.0
"""A step is late once it takes that much longer than two of the steps before."""
ALL = "every worker"
ACTIVITIES = ("collating a batch", "at work", "waiting for other workers")
"""What a worker does, in the order in which others wait for it."""
_log = log.get(__name__)


@dataclass(frozen=True)
class Beat:
    """What a worker says of itself."""

    rank: int
    node: str
    """Address of its node."""
    pid: int
    step: int = 0
    """Steps done."""
    activity: int = 1
    """Index in ACTIVITIES; on a GPU, what waits for others is at work, since operations run on after their call."""
    late: float = 0.0
    """Seconds by which the current step takes longer than two of those before."""

    @property
    def name(self) -> str:
        """The worker, as a person looks for it."""
        return f"rank {self.rank} (process {self.pid} on {self.node})"


class Heartbeat:
    """Sends a beat every `seconds` from a thread, until it is closed."""

    def __init__(
        self, send: Callable[[Beat], Any], rank: int, node: str, clocks: Clocks, seconds: float = BEAT_SECONDS
    ) -> None:
        """`clocks` tell what the worker does."""
        self._send = send
        self._rank, self._node, self._clocks = rank, node, clocks
        self._step, self._since, self._usual = 0, time.monotonic(), 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="heliostat-heartbeat", daemon=True)
        self._thread.start()

    def stepped(self, stats: StepStats) -> None:
        """Notes that a step is done."""
        self._step, self._since, self._usual = stats.step, time.monotonic(), stats.seconds

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()
        self._thread.join(timeout=10)

    def _run(self, seconds: float) -> None:
        is_lost = False
        while not self._closed.is_set():
            try:
                self._send(self._beat())
                is_lost = False
            except Exception as error:  # the next one may arrive, and training needs none
                if not is_lost:
                    _log.warning("the driver is not told that this worker lives: %s", error)
                is_lost = True
            self._closed.wait(seconds)

    def _beat(self) -> Beat:
        late = time.monotonic() - self._since - 2 * self._usual if self._usual else 0.0
        return Beat(self._rank, self._node, os.getpid(), self._step, self._activity(), max(0.0, late))

    def _activity(self) -> int:
        return 0 if self._clocks.data.is_running else 2 if self._clocks.communication.is_running else 1


class RankWatch:
    """Which workers of a run hold the others up, from their beats. Times are of `time.monotonic`."""

    def __init__(self) -> None:
        self._beats: dict[int, tuple[Beat, float]] = {}
        self._suspects: set[str] = set()
        self._named: dict[str, float] = {}
        """Name of a worker -> when a line named it."""

    def beat(self, beat: Beat, now: float) -> None:
        """Takes a beat; one of a new process ends what is known of the attempt before."""
        known = self._beats.get(beat.rank)
        if known and known[0].pid != beat.pid:
            self._beats.clear()
            self._named.clear()
        self._beats[beat.rank] = beat, now

    def leave(self, rank: int) -> None:
        """Forgets a worker that has done its work."""
        left = self._beats.pop(rank, None)
        if left:
            self._named.pop(left[0].name, None)

    def changes(self, now: float) -> list[str]:
        """Lines about workers that hang and were not named yet, and about those that go on again.

        A worker is named if it hangs at two calls in a row: beats that came while this process stood still are taken
        in between.
        """
        found = {**self._stuck(), **self._silent(now)}
        gone = [name for name in self._named if name not in found]
        lines = [f"{name} goes on, after {now - self._named.pop(name):.0f} s" for name in gone]
        new = [name for name in found if name in self._suspects and name not in self._named]
        self._suspects = set(found)
        self._named |= dict.fromkeys(new, now)
        return [*lines, *(f"{name} {found[name]}" for name in new)]

    def _silent(self, now: float) -> dict[str, str]:
        ages = {beat: now - at for beat, at in self._beats.values()}
        if ages and min(ages.values()) > ALL_SILENT_SECONDS:
            return {ALL: f"has said nothing for {min(ages.values()):.0f} s"}
        silent = {beat: age for beat, age in ages.items() if age > SILENT_SECONDS}
        if len(silent) == len(ages):
            return {}
        return {
            beat.name: f"has said nothing for {age:.0f} s, since step {beat.step}; the other workers wait for it"
            for beat, age in silent.items()
        }

    def _stuck(self) -> dict[str, str]:
        late = [beat for beat, _ in self._beats.values() if beat.late > LATE_SECONDS]
        last = max((beat.activity for beat in late), default=0)
        return {
            beat.name: f"holds the others up: it is {ACTIVITIES[beat.activity]} since step {beat.step}"
            for beat in late
            if beat.activity < last
        }
