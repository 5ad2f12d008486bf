"""Counts of the last day in hourly slots, in each replica and together over all replicas of an endpoint.

As with the usage of keys, a replica reports its whole window, numbered, to a ledger that outlives it, and gets the sum
of the others: a report that is repeated, late or lost changes nothing. What a replica that has ended counted stays
until it is out of the window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import uuid4

import numpy as np

SLOT_SECONDS = 3600
SLOTS = 24
"""In the window; the one that goes on is the last of them."""
Report = Mapping[int, np.ndarray]
"""Counts [bins] by number of the slot."""
Exchange = Callable[[str, str, int, Report], "np.ndarray | None"]
"""Version, replica, number of the report and the report; what other replicas of the version counted, if anything."""


def slot_of(seconds: float) -> int:
    """Number of the slot at a Unix time."""
    return int(seconds // SLOT_SECONDS)


def recent(report: Report, now: float) -> dict[int, np.ndarray]:
    """The slots that are in the window at the Unix time `now`."""
    return {slot: counts for slot, counts in report.items() if slot > slot_of(now) - SLOTS}


class SlidingCounts:
    """Counts of the window: this replica's, and those of the others as last shared."""

    def __init__(self, bins: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._replica = uuid4().hex
        self._number = 0
        self._slots: dict[int, np.ndarray] = {}
        self._others = np.zeros(bins, np.int64)
        self._bins = bins

    def add(self, counts: np.ndarray) -> None:
        """Adds counts [bins] to the slot that goes on."""
        slot = slot_of(self._clock())
        with self._lock:
            self._slots = recent(self._slots, self._clock())
            self._slots[slot] = self._slots.get(slot, 0) + counts

    def total(self) -> np.ndarray:
        """Counts of the window over all replicas, as far as known here: int64 [bins]."""
        with self._lock:
            own = recent(self._slots, self._clock())
            return np.sum([self._others, *own.values()], axis=0)

    def share(self, version: str, exchange: Exchange) -> None:
        """Reports this replica's counts, and takes over those of the others."""
        with self._lock:
            self._number += 1
            report = recent(self._slots, self._clock())
        found = exchange(version, self._replica, self._number, report)
        with self._lock:
            self._others = np.zeros(self._bins, np.int64) if found is None else found


@dataclass(frozen=True)
class _Reported:
    number: int
    at: float
    report: Report


class DriftLedger:
    """An actor that knows what all replicas of an endpoint counted: the newest report of each."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reports: dict[tuple[str, str], _Reported] = {}

    def exchange(self, version: str, replica: str, number: int, report: Report) -> np.ndarray | None:
        """Takes a replica's report, unless it has a newer one; what others of its version counted, None for nothing."""
        now, key = self._clock(), (version, replica)
        known = self._reports.get(key)
        if known is None or number > known.number:
            self._reports[key] = _Reported(number, now, report)
        self._reports = {one: kept for one, kept in self._reports.items() if recent(kept.report, now) or one == key}
        others = [
            counts
            for (of, by), one in self._reports.items()
            if of == version and by != replica
            for counts in recent(one.report, now).values()
        ]
        return np.sum(others, axis=0) if others else None

    def is_idle(self, seconds: float) -> bool:
        """Whether nobody has reported for so long."""
        return all(self._clock() - one.at >= seconds for one in list(self._reports.values()))
