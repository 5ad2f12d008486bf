"""Compares what a replica is asked and answers with the training split, and reports how far they are apart.

A request only leaves its numbers in a queue; a thread counts many of them at once, shares the counts with the other
replicas and judges them together. Only counts leave the replica.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heliostat.infra import log
from heliostat.infra.drift.reference import LABEL, SCORE, UNSEEN, Reference
from heliostat.infra.drift.statistics import Statistics
from heliostat.infra.drift.verdict import verdicts
from heliostat.serve.drift.window import Exchange, SlidingCounts
from heliostat.serve.metrics import ServeMetrics

COUNT_SECONDS = 1.0
JUDGE_SECONDS = 15.0
MOST_QUEUED = 8192
"""Inputs; where more are asked before they are counted, the oldest are left out."""
_log = log.get(__name__)


@dataclass(frozen=True)
class _Seen:
    kept: Any
    missing: Sequence[str]
    scores: Sequence[float]


class DriftWatch:
    """Counts inputs and answers into the bins of `reference`; a thread reports the verdicts to `metrics`."""

    def __init__(
        self,
        reference: Reference,
        statistics: Statistics,
        metrics: ServeMetrics,
        exchange: Exchange,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.reference = reference
        self.statistics = statistics
        self.metrics = metrics
        self._exchange = exchange
        self._is_lost = False
        self._window = SlidingCounts(reference.size, clock)
        self._queue: deque[_Seen] = deque(maxlen=MOST_QUEUED)
        self._refused: deque[tuple[str, bool]] = deque(maxlen=MOST_QUEUED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heliostat-drift", daemon=True)

    def start(self) -> None:
        """Reports that there is nothing to judge yet, and starts the thread."""
        self.report()
        self._thread.start()

    def add(self, item: Any, missing: Sequence[str], scores: Sequence[float]) -> None:
        """Counts an input, of which the columns `missing` were empty, and the probability of each label."""
        self._queue.append(_Seen(self.statistics.kept(item), missing, scores))

    def refuse(self, column: str, *, is_missing: bool) -> None:
        """Counts a cell for which a request was refused: empty, or a word that the training split does not have."""
        self._refused.append((column, is_missing))

    def count(self) -> bool:
        """Counts what is queued; returns whether there was anything."""
        seen = [self._queue.popleft() for _ in range(len(self._queue))]
        refused = [self._refused.popleft() for _ in range(len(self._refused))]
        if seen:
            self._window.add(self.reference.counted(self._values(seen)))
        for (column, is_missing), times in Counter(refused).items():
            self._window.add(self.reference.counted({column: np.full(times, np.nan if is_missing else UNSEEN)}))
        return bool(seen or refused)

    def share(self) -> None:
        """Exchanges counts with the other replicas; without them, this one is judged alone."""
        try:
            self._window.share(str(self.metrics.labels["version"]), self._exchange)
            self._is_lost = False
        except Exception as error:
            if not self._is_lost:
                _log.warning("drift is judged in each replica alone for now: %s", error)
            self._is_lost = True

    def report(self) -> None:
        """Reports the verdict on each column."""
        found = verdicts(self.reference, self._window.total())
        for one in found:
            self.metrics.drift(one.column, one.psi, one.p_value, has_drifted=one.state == "drifted")
        states = Counter[str](one.state for one in found)
        self.metrics.drift_columns({**states, "left_out": self.reference.left_out})

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()

    def _values(self, seen: Sequence[_Seen]) -> dict[str, np.ndarray]:
        values = self.statistics.values([one.kept for one in seen])
        for row, one in enumerate(seen):
            for column in one.missing:
                if column in values:
                    values[column][row] = np.nan
        scores = np.asarray([one.scores for one in seen])
        return {**values, LABEL: scores.argmax(axis=1).astype(np.float64), SCORE: scores.max(axis=1)}

    def _run(self) -> None:
        judged, has_counted = time.monotonic(), False
        while not self._closed.wait(COUNT_SECONDS):
            try:
                has_counted |= self.count()
                if time.monotonic() - judged < JUDGE_SECONDS:
                    continue
                judged = time.monotonic()
                if has_counted:
                    self.share()
                self.report()
            except Exception:  # of what was counted now: what comes next is watched nevertheless
                _log.exception("drift: some inputs were not counted, or not judged")
