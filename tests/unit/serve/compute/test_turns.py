from __future__ import annotations

import threading

import pytest

from heliostat.serve.compute.turns import Turns


def test_turns_are_taken_while_there_is_work_and_none_after_the_end() -> None:
    work: list[int] = []
    done: list[int] = []
    all_done = threading.Event()

    def turn() -> None:
        with turns.lock:
            done.append(work.pop())
        if len(done) == 3:
            all_done.set()

    turns = Turns("turns", lambda: work, turn)
    with turns.adding():
        work.extend([3, 2, 1])
    assert all_done.wait(10)
    assert turns.alive
    turns.close()
    assert not turns.alive
    assert done == [1, 2, 3]
    with pytest.raises(RuntimeError, match="shutting down"), turns.adding():
        work.append(4)
    assert work == []
