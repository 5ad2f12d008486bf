import time

import pytest

from heliostat.train.telemetry.clocks import Clock, _timed


def test_a_clock_adds_up_its_blocks_until_it_is_asked() -> None:
    clock = Clock()
    for _ in range(2):
        with clock:
            time.sleep(0.01)
    time.sleep(0.05)
    assert 0.02 <= clock.take() < 0.06
    assert clock.take() == 0


def test_a_block_inside_a_block_counts_once() -> None:
    clock = Clock()
    with clock, clock:
        time.sleep(0.02)
    assert 0.02 <= clock.take() < 0.035


def test_a_block_that_raises_still_counts() -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock:
        raise KeyError
    assert clock.take() > 0
    with clock:
        pass
    assert clock.take() > 0


class Pending:
    is_async = True

    def wait(self) -> str:
        time.sleep(0.02)
        return "done"


def test_waiting_for_an_operation_under_way_counts() -> None:
    clock = Clock()
    handle = _timed(clock, Pending)
    assert clock.take() < 0.01
    assert handle.is_async
    assert handle.wait() == "done"
    assert clock.take() >= 0.02


def test_an_operation_that_is_over_is_handed_on() -> None:
    assert _timed(Clock(), lambda value: value, 3) == 3
