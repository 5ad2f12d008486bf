"""Tells a vLLM engine that is stuck from one that is busy; vLLM itself only tells one that has ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from heliostat.infra import log

_log = log.get(__name__)


class Watchdog:
    """Suspects the engine when a request was not answered in time and nobody else was answered meanwhile.

    Then `trial` asks the engine for one token. If none comes within `seconds`, for the trial or anyone, it is stuck.
    """

    def __init__(self, trial: Callable[[], Awaitable[object]], seconds: float) -> None:
        self.trial = trial
        self.seconds = seconds
        self._answered = time.monotonic()
        self._stuck = False
        self._task: asyncio.Task[None] | None = None

    def answered(self) -> None:
        """Notes that the engine gave a token, or another result, to any request."""
        self._answered, self._stuck = time.monotonic(), False

    def timed_out(self, began: float) -> None:
        """Notes that a request that began at `began` (monotonic, in seconds) was not answered in time."""
        if self._answered < began and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._try())

    def check(self) -> None:
        """Raises RuntimeError if the engine is stuck."""
        if self._stuck:
            raise RuntimeError(f"vLLM has answered nobody for {self.seconds:g} s (serve.timeout_seconds)")

    async def _try(self) -> None:
        began = time.monotonic()
        with contextlib.suppress(Exception):  # one that fails has no answer either
            await asyncio.wait_for(self.trial(), self.seconds)
        self._stuck = self._answered < began
        if self._stuck:
            _log.error("vLLM answers nothing, not even a prompt of one token: the replica is unhealthy")
