from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from heliostat.cluster.session.interrupts import (
    Terminated,
    first_sigterm,
    interrupts_ignored,
    restored_sigint,
    sigterm_as_interrupt,
)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)  # the handler runs in here, and ends it


def test_sigterm_ends_the_block_like_an_interrupt_and_the_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, sigterm_as_interrupt():
        send(signal.SIGTERM)
    assert caught.type is Terminated
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_first_sigterm_is_a_notice_and_the_next_ends_the_block() -> None:
    before, told = signal.getsignal(signal.SIGTERM), threading.Event()
    with first_sigterm(told.set):
        send(signal.SIGTERM)
        assert told.is_set()
        with pytest.raises(Terminated):
            send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_does_not_cut_the_clean_up_short() -> None:
    cleaned = False
    with sigterm_as_interrupt(), interrupts_ignored():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        cleaned = True
    assert cleaned


def test_a_library_that_keeps_ctrl_c_has_to_give_it_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with restored_sigint():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with sigterm_as_interrupt(), restored_sigint(), interrupts_ignored(), first_sigterm(lambda: None):
            done.append(True)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
    assert signal.getsignal(signal.SIGTERM) is before
