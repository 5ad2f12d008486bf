"""Shares the usage of keys between the replicas of an endpoint."""

from __future__ import annotations

import threading
from functools import partial

from heliostat.infra import log
from heliostat.serve.access.usage import UsageCounter, UsageLedger
from heliostat.serve.ledger import LedgerClient

SHARE_SECONDS = 0.25
ALL_VERSIONS = ""
"""The group of all replicas: a key has one limit, whichever version answers."""
_log = log.get(__name__)


class UsageSync:
    """A thread that shares a replica's usage with the others; started by the first request with a limited key."""

    def __init__(self, counter: UsageCounter, endpoint: str) -> None:
        self._counter = counter
        self._exchange = partial(LedgerClient(UsageLedger, endpoint), ALL_VERSIONS)
        self._is_lost = False
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts the thread. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heliostat-usage", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()

    def _run(self) -> None:
        closed = False
        while not closed:
            try:
                self._counter.share(self._exchange)
                self._is_lost = False
            except Exception as error:
                if not self._is_lost:
                    _log.warning("limits of keys are counted in each replica alone for now: %s", error)
                self._is_lost = True
            closed = self._closed.wait(SHARE_SECONDS)
