"""Limits per key and minute, counted in each replica and synchronized over all replicas of an endpoint each second."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from heliostat.infra import log
from heliostat.serve.access.keys import ApiKey
from heliostat.serve.errors import App, Receive, RequestError, Scope, Send, send_error

MINUTE = 60
SHARE_SECONDS = 1.0
REQUESTS, TOKENS = "requests", "tokens"
Use = tuple[str, str]
"""Name of a key, and what is counted: REQUESTS or TOKENS."""
_log = log.get(__name__)
_spend: ContextVar[Callable[[int], None]] = ContextVar("spend", default=lambda _: None)


def count_tokens(tokens: int) -> None:
    """Counts tokens towards the key of the current request, if it has one."""
    _spend.get()(tokens)


class UsageCounter:
    """Usage in the current clock minute: this replica's, and that of the others as last synchronized."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = 0
        self._all: Counter[Use] = Counter()
        self._unreported: Counter[Use] = Counter()

    def add(self, use: Use, count: int = 1) -> None:
        """Adds to this replica's usage."""
        with self._lock:
            self._start_minute()
            self._all[use] += count
            self._unreported[use] += count

    def used(self, use: Use) -> int:
        """Usage in this minute over all replicas, as far as known here."""
        with self._lock:
            self._start_minute()
            return self._all[use]

    def seconds_left(self) -> int:
        """Whole seconds until the next minute, 1 to 60."""
        return max(1, math.ceil(MINUTE - self._clock() % MINUTE))

    def share(self, report: Callable[[int, Mapping[Use, int]], Mapping[Use, int]]) -> None:
        """Reports the usage since the last call, with its minute, and takes over the sum of all replicas."""
        with self._lock:
            self._start_minute()
            minute, reported, self._unreported = self._minute, self._unreported, Counter()
        try:
            found = report(minute, reported)
        except Exception:
            with self._lock:
                self._unreported += reported
            raise
        with self._lock:
            self._start_minute()
            if self._minute == minute:
                self._all = Counter(found) + self._unreported

    def _start_minute(self) -> None:
        minute = int(self._clock() // MINUTE)
        if minute != self._minute:
            self._minute, self._all, self._unreported = minute, Counter(), Counter()


class UsageAggregator:
    """An actor that sums up the usage of all replicas of an endpoint."""

    def __init__(self) -> None:
        self._minute = 0
        self._sums: Counter[Use] = Counter()

    def report(self, minute: int, reported: Mapping[Use, int]) -> dict[Use, int]:
        """Adds a replica's usage and returns the sums of that minute; keeps only the newest minute."""
        if minute > self._minute:
            self._minute, self._sums = minute, Counter()
        if minute == self._minute:
            self._sums += Counter(reported)
            return dict(self._sums)
        return dict(reported)


class UsageSync:
    """A thread that synchronizes a replica's usage with the others; started by the first request with a limited key."""

    def __init__(self, counter: UsageCounter, endpoint: str) -> None:
        self._counter = counter
        self._name = f"heliostat-quota-{endpoint}"
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts the thread. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heliostat-quota", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(SHARE_SECONDS):
            try:
                self._counter.share(self._report)
            except Exception as error:
                _log.warning("limits of keys are counted in each replica alone for now: %s", error)

    def _report(self, minute: int, reported: Mapping[Use, int]) -> dict[Use, int]:
        """Reports to the aggregator actor, which is created again if the replica that owned it is gone."""
        import ray

        sums: Any = ray.remote(num_cpus=0)(UsageAggregator).options(name=self._name, get_if_exists=True).remote()
        found: dict[Use, int] = ray.get(sums.report.remote(minute, dict(reported)), timeout=5)
        return found


class KeyLimitMiddleware:
    """Answers 429, with the seconds to the next minute, when a key has used up its limit."""

    def __init__(self, app: App, counter: UsageCounter, on_limited: Callable[[], None] = lambda: None) -> None:
        self.app = app
        self.counter = counter
        self.on_limited = on_limited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; only POST counts."""
        key: ApiKey | None = scope.get("heliostat.key")
        if key is None or not key.is_limited or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.on_limited()
        for kind, limit in ((REQUESTS, key.requests_per_minute), (TOKENS, key.tokens_per_minute)):
            if limit is not None and self.counter.used((key.name, kind)) >= limit:
                await send_error(send, self._too_much(key.name, kind, limit))
                return
        self.counter.add((key.name, REQUESTS))
        token = _spend.set(lambda tokens: self.counter.add((key.name, TOKENS), tokens))
        try:
            await self.app(scope, receive, send)
        finally:
            _spend.reset(token)

    def _too_much(self, name: str, kind: str, limit: int) -> RequestError:
        left = self.counter.seconds_left()
        return RequestError(
            429,
            f"key {name!r}: {limit} {kind} a minute are allowed and used up; try again in {left} s",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(left)},
        )
