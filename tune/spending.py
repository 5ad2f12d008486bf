"""What a search has spent, over all of its drivers: time, hours of workers, those of them that waited, and money."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Spending:
    """Counts what this driver spends, beside what those before it did."""

    def __init__(self, workers: int, worker_hour_usd: float | None) -> None:
        """`workers` are those of a gang; without a price, no money is counted."""
        self._workers, self._worker_hour_usd = workers, worker_hour_usd
        self._seconds = {"seconds": 0.0, "worker_seconds": 0.0, "idle_worker_seconds": 0.0}
        self._counted = time.monotonic()

    def add(self, earlier: Mapping[str, float]) -> None:
        """Adds what earlier drivers have spent."""
        for name in self._seconds:
            self._seconds[name] += earlier.get(name, 0.0)

    def count(self, gangs: int, idle: int) -> None:
        """Counts the time since the last call, in which so many gangs had their workers, and `idle` of them no work."""
        now = time.monotonic()
        passed, self._counted = now - self._counted, now
        self._seconds["seconds"] += passed
        self._seconds["worker_seconds"] += passed * gangs * self._workers
        self._seconds["idle_worker_seconds"] += passed * idle * self._workers

    @property
    def total(self) -> dict[str, float]:
        """Seconds in which a driver ran, those of workers, idle ones too, and those of idle ones; `usd` with a price.

        One price holds for all hours of a search, those of earlier drivers too: so the costs of its trials add up.
        """
        if self._worker_hour_usd is None:
            return dict(self._seconds)
        return {**self._seconds, "usd": self._seconds["worker_seconds"] / 3600 * self._worker_hour_usd}
