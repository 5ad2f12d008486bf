"""Something slow that is looked at once a minute, in the background, however often and by however many it is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from heliostat.infra import log
from heliostat.infra.errors import HeliostatError

EVERY_SECONDS = 60.0
LATE_SECONDS = 30.0
"""A look that takes longer makes the source count as down."""
KEPT_SECONDS = 300.0
"""Older answers are given to nobody: what they say of ages would be wrong."""
T = TypeVar("T")
_log = log.get(__name__)


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What is known of a source now."""

    value: T | None = None
    """Of the last look that succeeded, if it is not too old."""
    at: float = 0.0
    """Unix time of that look."""
    seconds: float = 0.0
    """How long the last look took."""
    errors: int = 0
    is_up: bool = False


class Source(Generic[T]):
    """Calls `look` at most once in `every_seconds`, one call at a time, and keeps what it returned."""

    def __init__(self, name: str, look: Callable[[], T], every_seconds: float = EVERY_SECONDS) -> None:
        self.name = name
        self._look, self._every = look, every_seconds
        self._lock = threading.Lock()
        self._last: Answer[T] = Answer()
        self._started = -every_seconds
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Starts a look in the background if one is due and none is under way."""
        with self._lock:
            is_due = time.monotonic() - self._started >= self._every
            if is_due and not self._is_looking:
                self._started = time.monotonic()
                self._thread = threading.Thread(target=self._refresh, name=f"look at {self.name}", daemon=True)
                self._thread.start()

    def answer(self, first_until: float) -> Answer[T]:
        """What is known; without any answer yet, waits for the first look until `first_until` (monotonic time)."""
        thread = self._thread
        if thread and not self._last.at:
            thread.join(max(0.0, first_until - time.monotonic()))
        with self._lock:
            found, is_late = self._last, self._is_looking and time.monotonic() - self._started > LATE_SECONDS
        is_kept = time.time() - found.at <= KEPT_SECONDS
        return replace(found, value=found.value if is_kept else None, is_up=found.is_up and not is_late)

    @property
    def _is_looking(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _refresh(self) -> None:
        before = self._last
        found = replace(before, errors=before.errors + 1, is_up=False)
        try:
            found = replace(before, value=self._look(), at=time.time(), is_up=True)
        except HeliostatError as error:
            _log.warning("exporter: %s", error)
        finally:
            with self._lock:
                self._last = replace(found, seconds=time.monotonic() - self._started)
