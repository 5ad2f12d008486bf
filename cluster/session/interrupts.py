"""Handling of Ctrl-C and SIGTERM: both stop the work, neither interrupts the clean-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; handled like Ctrl-C."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C, so that resources are cleaned up."""
    with _put_back(signal.SIGTERM):
        on_sigterm()
        yield


def on_sigterm() -> None:
    """Makes SIGTERM raise Terminated in the main thread; call again after a library has replaced the handler."""

    def stop(*_: object) -> None:
        raise Terminated

    _handle(signal.SIGTERM, stop)


@contextmanager
def first_sigterm(notice: Callable[[], None]) -> Iterator[None]:
    """The first SIGTERM in the block calls `notice`, so that work can end by itself; the next one ends the block."""

    def first(*_: object) -> None:
        on_sigterm()
        notice()

    with _put_back(signal.SIGTERM):
        _handle(signal.SIGTERM, first)
        yield


@contextmanager
def restored_sigint() -> Iterator[None]:
    """Restores the Ctrl-C handler after the block: `TorchTrainer.fit` replaces it, which keeps its controller alive."""
    with _put_back(signal.SIGINT):
        yield


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignores Ctrl-C and SIGTERM in the block, so that a second one does not cut the clean-up short."""
    with _put_back(signal.SIGINT, signal.SIGTERM):
        _handle(signal.SIGINT, signal.SIG_IGN)
        _handle(signal.SIGTERM, signal.SIG_IGN)
        yield


def _handle(number: signal.Signals, handler: Callable[..., None] | signal.Handlers) -> None:
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
