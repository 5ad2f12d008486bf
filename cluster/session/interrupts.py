"""Handling of Ctrl-C, SIGTERM and SIGHUP (a closed terminal): they stop the work, and never interrupt the clean-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_ALL = (signal.SIGINT, *_TERMINATING)


class Terminated(KeyboardInterrupt):
    """A signal arrived that ends the command; handled like Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block like Ctrl-C, so that resources are cleaned up."""
    with _put_back(*_TERMINATING):
        on_signals()
        yield


def on_signals() -> None:
    """Makes SIGTERM and SIGHUP raise Terminated in the main thread; call again after a library has set a handler."""
    for one in _TERMINATING:
        _handle(one, _stop)


def _stop(number: int, _: object) -> None:
    raise Terminated(number)


@contextmanager
def first_signal(notice: Callable[[signal.Signals], None]) -> Iterator[None]:
    """The first of Ctrl-C, SIGTERM and SIGHUP in the block calls `notice`, so that work can end by itself.

    The next one ends the block.
    """

    def first(number: int, _: object) -> None:
        for one in _ALL:
            _handle(one, _stop)
        notice(signal.Signals(number))

    with _put_back(*_ALL):
        for one in _ALL:
            _handle(one, first)
        yield


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignores Ctrl-C, SIGTERM and SIGHUP in the block, so that a second one does not cut the clean-up short."""
    with _put_back(*_ALL):
        for one in _ALL:
            _handle(one, signal.SIG_IGN)
        yield


def _handle(number: signal.Signals, handler: Callable[..., None] | signal.Handlers) -> None:
    """Sets a handler, unless the command was started with this signal ignored, as `nohup` does with SIGHUP."""
    if signal.getsignal(number) is signal.SIG_IGN:
        return
    with suppress(ValueError):  # outside the main thread, which alone may set handlers
        signal.signal(number, handler)


@contextmanager
def _put_back(*signals: signal.Signals) -> Iterator[None]:
    """Restores the handlers after the block; does nothing outside the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) or signal.SIG_DFL for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
