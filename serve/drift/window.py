"""Counts of the last day in hourly slots, in each replica and together over all replicas of an endpoint.

What a replica that has ended counted stays until it is out of the window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

import numpy as np

from heliostat.serve.ledger import Ledger, Reported

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


class DriftLedger(Ledger[Report, "np.ndarray | None"]):
    """What all replicas of an endpoint counted, by version: a total is int64 [bins], None for nothing."""

    name = "drift"
    idle_seconds = 3600.0

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)

    def is_kept(self, reported: Reported[Report], now: float) -> bool:
        """As long as a slot of it is in the window, also after its replica has ended."""
        return bool(recent(reported.report, now))

    def total(self, reported: Sequence[Reported[Report]], now: float) -> np.ndarray | None:
        """The sum of all slots in the window."""
        found = [counts for one in reported for counts in recent(one.report, now).values()]
        return np.sum(found, axis=0) if found else None
