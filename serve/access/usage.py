"""Usage of keys in the last minute, counted in each replica and shared over all replicas of an endpoint.

Reports tell ages instead of times, so clocks need not agree.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from heliostat.serve.ledger import Ledger, Reported

WINDOW_SECONDS = 60.0
RESOLUTION_SECONDS = 1.0
"""What is counted within this time is kept as one number, with the time of the last."""
REQUESTS, TOKENS = "requests", "tokens"
Use = tuple[str, str]
"""Name of a key, and what is counted: REQUESTS or TOKENS."""
Report = Mapping[Use, list[tuple[float, int]]]
"""Ages in seconds with counts, for each use."""


@dataclass
class Bucket:
    """What was counted within one second at most."""

    first: float
    last: float
    count: int


class SlidingWindow:
    """Counts of the last minute; all times are seconds of one clock that only goes forward."""

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self._buckets = deque(sorted(buckets, key=lambda bucket: bucket.last))

    def add(self, now: float, count: int) -> Bucket:
        """Counts, and returns where, so that some of it can be taken back."""
        last = self._buckets[-1] if self._buckets else None
        if last is None or now - last.first >= RESOLUTION_SECONDS:
            last = Bucket(now, now, 0)
            self._buckets.append(last)
        last.last, last.count = now, last.count + count
        return last

    def buckets(self, now: float) -> deque[Bucket]:
        """Those of the last minute, oldest first."""
        while self._buckets and now - self._buckets[0].last >= WINDOW_SECONDS:
            self._buckets.popleft()
        return self._buckets


class UsageCounter:
    """Usage in the last minute: this replica's, and that of the others as last shared."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._replica = uuid4().hex
        self._number = 0
        self._own: dict[Use, SlidingWindow] = {}
        self._others: dict[Use, SlidingWindow] = {}

    def add(self, use: Use, count: int = 1) -> Bucket:
        """Adds to this replica's usage; see `give_back`."""
        with self._lock:
            return self._own.setdefault(use, SlidingWindow()).add(self._clock(), count)

    def give_back(self, bucket: Bucket, count: int) -> None:
        """Takes back what was counted in a bucket and then not used."""
        with self._lock:
            bucket.count -= count

    def used(self, use: Use) -> int:
        """Usage in the last minute over all replicas, as far as known here."""
        with self._lock:
            return sum(bucket.count for bucket in self._buckets(use, self._clock()))

    def seconds_until(self, use: Use, most: int) -> float:
        """Seconds until at most `most` are used, if nothing is added; 0 if that is so now, 60 at most."""
        with self._lock:
            now = self._clock()
            buckets = self._buckets(use, now)
        left = sum(bucket.count for bucket in buckets)
        seconds = 0.0
        for bucket in buckets:
            if left <= most:
                break
            left -= bucket.count
            seconds = bucket.last + WINDOW_SECONDS - now
        return seconds

    def share(self, exchange: Callable[[str, int, Report], Report]) -> None:
        """Reports this replica's usage, and takes over that of the others."""
        with self._lock:
            self._number += 1
            replica, number, report = self._replica, self._number, self._report(self._clock())
        found = exchange(replica, number, report)
        with self._lock:
            now = self._clock()
            self._others = {
                use: SlidingWindow(Bucket(now - age, now - age, count) for age, count in counts)
                for use, counts in found.items()
            }

    def _buckets(self, use: Use, now: float) -> list[Bucket]:
        windows = (window.get(use) for window in (self._own, self._others))
        found = [bucket for window in windows if window for bucket in window.buckets(now)]
        return sorted(found, key=lambda bucket: bucket.last)

    def _report(self, now: float) -> Report:
        self._own = {use: window for use, window in self._own.items() if window.buckets(now)}
        return {
            use: [(now - bucket.last, bucket.count) for bucket in window.buckets(now)]
            for use, window in self._own.items()
        }


class UsageLedger(Ledger[Report, Report]):
    """The usage of all replicas of an endpoint: the newest report of each, for a minute."""

    name = "usage"
    idle_seconds = WINDOW_SECONDS

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)

    def is_kept(self, reported: Reported[Report], now: float) -> bool:
        """For a minute."""
        return now - reported.at < WINDOW_SECONDS

    def total(self, reported: Sequence[Reported[Report]], now: float) -> Report:
        """All usage, with the ages of now."""
        found: dict[Use, Counter[int]] = {}
        for one in reported:
            for use, counts in one.report.items():
                for age, count in counts:  # younger by a second at most, so that the window is never too short
                    found.setdefault(use, Counter())[int(age + now - one.at)] += count
        return {use: [(float(age), count) for age, count in counts.items()] for use, counts in found.items()}
