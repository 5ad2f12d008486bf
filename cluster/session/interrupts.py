"""Ctrl-C and SIGTERM: both end the work, neither ends the cleaning up after it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what Ctrl-C does, asked for by another program."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, so that what it started is cleaned up."""
    with _put_back(signal.SIGTERM):
        on_sigterm()
        yield


def on_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread; for after a library took the signal for itself."""

    def stop(*_: object) -> None:
        raise Terminated

    _handle(signal.SIGTERM, stop)


@contextmanager
def first_sigterm(notice: Callable[[], None]) -> Iterator[None]:
    """The first SIGTERM in the block calls `notice`, for work that then ends by itself; the next ends the block."""

    def first(*_: object) -> None:
        on_sigterm()
        notice()

    with _put_back(signal.SIGTERM):
        _handle(signal.SIGTERM, first)
        yield


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Gives Ctrl-C back after the block; for `TorchTrainer.fit`, which keeps it, and with it its controller actor."""
    with _put_back(signal.SIGINT):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C or SIGTERM does not cut the clean-up short; it takes seconds."""
    with _put_back(signal.SIGINT, signal.SIGTERM):
        _handle(signal.SIGINT, signal.SIG_IGN)
        _handle(signal.SIGTERM, signal.SIG_IGN)
        yield


def _handle(number: signal.Signals, handler: Callable[..., None] | signal.Handlers) -> None:
    with suppress(ValueError):  # not the main thread: the signal is someone else's
        signal.signal(number, handler)


@contextmanager
def _put_back(*signals: signal.Signals) -> Iterator[None]:
    """Puts the handlers back after the block; does nothing outside the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) or signal.SIG_DFL for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
