from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from heliostat.cluster.session.interrupts import (
    Terminated,
    first_signal,
    interrupts_ignored,
    signals_as_interrupt,
)

pytestmark = pytest.mark.usefixtures("signals_heeded")
ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)  # the handler runs in here, and ends it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_like_an_interrupt_and_the_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=f"stopped by {number.name}") as caught, signals_as_interrupt():
        send(number)
    assert caught.type is Terminated
    assert caught.value.number == number  # type: ignore[attr-defined]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_is_a_notice_and_the_next_ends_the_block(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in ALL]
    received: list[signal.Signals] = []
    with first_signal(received.append):
        send(number)
        assert received == [number]
        with pytest.raises(Terminated, match="SIGTERM"):
            send(signal.SIGTERM)
    assert [signal.getsignal(one) for one in ALL] == before


def test_a_signal_that_the_command_was_started_without_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_as_interrupt(), first_signal(lambda _: None):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_cut_the_clean_up_short() -> None:
    cleaned = False
    with signals_as_interrupt(), interrupts_ignored():
        for one in ALL:
            os.kill(os.getpid(), one)
        cleaned = True
    assert cleaned


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with signals_as_interrupt(), interrupts_ignored(), first_signal(lambda _: None):
            done.append(True)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
    assert signal.getsignal(signal.SIGTERM) is before
