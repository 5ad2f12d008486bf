"""Work in the background on the newest value."""

from __future__ import annotations

import threading

import pytest

from heliostat.tune.reports.latest import latest
from tests.waiting import until


def test_values_that_are_replaced_while_another_is_worked_on_are_skipped() -> None:
    begun, may_end = threading.Event(), threading.Event()
    worked: list[int] = []

    def work(value: int) -> None:
        worked.append(value)
        begun.set()
        may_end.wait(30)

    with latest(work) as give:
        give(1)
        assert begun.wait(30)
        for value in (2, 3, 4):
            give(value)
        may_end.set()
    assert worked == [1, 4]
    assert give.last == 4


def test_the_error_of_the_work_is_raised_where_the_next_value_is_given_or_at_the_end() -> None:
    failed = threading.Event()

    def work(value: int) -> None:
        failed.set()
        raise ValueError(f"{value} is wrong")

    with latest(work) as give:
        give(1)
        assert failed.wait(30)
        with pytest.raises(ValueError, match="1 is wrong"):
            until(lambda: give(0), "the error", 30)
    with pytest.raises(ValueError, match="2 is wrong"), latest(work) as again:
        again(2)


def test_a_block_that_gives_nothing_ends() -> None:
    def work(value: int) -> None:
        pytest.fail(str(value))

    with latest(work) as give:
        pass
    assert give.last is None
