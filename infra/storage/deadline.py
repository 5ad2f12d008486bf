"""Deadlines for work over a network, which are extended only by bytes that were transferred."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceededError(Exception):
    """The deadline has passed; never shown to a user as it is."""


class Deadline:
    """The deadline of one operation, checked by all threads that work for it.

    `bytes_per_second` is the slowest transfer that is accepted: each byte extends the deadline by its reciprocal.
    """

    def __init__(self, seconds: float, bytes_per_second: float) -> None:
        self._start = monotonic()
        self._at = self._start + seconds
        self._seconds_per_byte = 1 / bytes_per_second
        self._ended = False

    def elapsed_seconds(self) -> float:
        """Seconds since the operation began."""
        return monotonic() - self._start

    def remaining_seconds(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._at - monotonic()

    def check(self) -> None:
        """Raises DeadlineExceededError if the deadline has passed."""
        if self._ended or self.remaining_seconds() <= 0:
            raise DeadlineExceededError

    def moved(self, count: int) -> None:
        """Extends the deadline for transferred bytes; `count` is negative when a retry starts over."""
        self.check()
        self._at += count * self._seconds_per_byte

    def end(self) -> None:
        """Makes every thread that still works for the operation stop at its next check."""
        self._ended = True


_current: ContextVar[Deadline] = ContextVar("deadline")


def current() -> Deadline:
    """The deadline of this thread; raises LookupError outside `bounded`."""
    return _current.get()


class ContextExecutor(ThreadPoolExecutor):
    """A thread pool whose threads inherit the deadline of the submitting thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As in ThreadPoolExecutor."""
        return super().submit(copy_context().run, fn, *args, **kwargs)


def bounded(call: Callable[[], T], deadline: Deadline) -> T:
    """Returns or raises what `call` does; raises DeadlineExceededError if the deadline passes first.

    The call runs in a background thread, because socket timeouts cover neither name lookups nor responses that trickle
    in. An abandoned thread ends at its next check, or with the process.
    """
    future: Future[T] = Future()

    def work() -> None:
        _current.set(deadline)
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        while not future.done() and deadline.remaining_seconds() > 0:
            wait([future], timeout=deadline.remaining_seconds())
        if not future.done():
            raise DeadlineExceededError
        return future.result()
    finally:
        deadline.end()
