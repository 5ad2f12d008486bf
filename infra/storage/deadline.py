"""An end for work over a network: a deadline in all, which only bytes that really move push back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceededError(Exception):
    """The work took too long and was given up; never shown to a user as it is."""


class Deadline:
    """When one operation must be over; all threads that work for it look here.

    `bytes_per_second` is the slowest transfer that is waited for: each byte moved gives one over it more.
    """

    def __init__(self, seconds: float, bytes_per_second: float) -> None:
        self._start = monotonic()
        self._at = self._start + seconds
        self._seconds_per_byte = 1 / bytes_per_second
        self._ended = False

    def elapsed_seconds(self) -> float:
        """Since the operation began."""
        return monotonic() - self._start

    def remaining_seconds(self) -> float:
        """Until it must be over; below zero after that."""
        return self._at - monotonic()

    def check(self) -> None:
        """Raises DeadlineExceededError where the time is over."""
        if self._ended or self.remaining_seconds() <= 0:
            raise DeadlineExceededError

    def moved(self, count: int) -> None:
        """Takes note of bytes transferred; negative where a retry starts again."""
        self.check()
        self._at += count * self._seconds_per_byte

    def end(self) -> None:
        """Tells every thread that still works for the operation to stop at its next check."""
        self._ended = True


_current: ContextVar[Deadline] = ContextVar("deadline")


def current() -> Deadline:
    """The deadline that this thread works under; LookupError outside `bounded`."""
    return _current.get()


class ContextExecutor(ThreadPoolExecutor):
    """Threads that work under the deadline of the thread that gives them work."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As ThreadPoolExecutor does."""
        return super().submit(copy_context().run, fn, *args, **kwargs)


def bounded(call: Callable[[], T], deadline: Deadline) -> T:
    """What `call` returns or raises; DeadlineExceededError where it takes longer than the deadline.

    The work runs in a thread of its own, because neither a name look-up nor an answer that trickles in heeds
    a socket's time limit. A thread that was given up ends at its next check, or with the process.
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
