"""Work in the background on the latest of the values that are given: those before it are skipped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A thread that calls `work` with the newest value, one after another."""

    def __init__(self, work: Callable[[T], None]) -> None:
        self.last: T | None = None
        """The newest value that was given."""
        self._work = work
        self._error: Exception | None = None
        self._is_over = False
        self._waits: T | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="latest", daemon=True)
        self._thread.start()

    def __call__(self, value: T) -> None:
        """Gives a value; returns at once. Raises the exception of the thread's work, if there was one."""
        with self._changed:
            self._raise()
            self.last = self._waits = value
            self._changed.notify()

    def close(self) -> None:
        """Returns once the newest value has been worked on; raises the exception of that, if there was one."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waits is not None or self._is_over)
                value, self._waits = self._waits, None
            if value is None:
                return
            try:
                self._work(value)
            except Exception as error:  # raised where the next value is given, or at the end
                self._error = error


@contextmanager
def latest(work: Callable[[T], None]) -> Iterator[Latest[T]]:
    """A Latest that is closed with the block."""
    given = Latest(work)
    try:
        yield given
    finally:
        given.close()
