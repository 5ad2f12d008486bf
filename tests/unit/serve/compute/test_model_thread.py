from __future__ import annotations

import threading

import pytest

from heliostat.serve.compute.model_thread import ModelThread


def test_turns_are_taken_while_there_is_work_and_none_after_the_end() -> None:
    work: list[int] = []
    done: list[int] = []
    all_done = threading.Event()

    def turn() -> None:
        with thread.lock:
            done.append(work.pop())
        if len(done) == 3:
            all_done.set()

    thread = ModelThread("turns", lambda: work, turn)
    with thread.adding():
        work.extend([3, 2, 1])
    assert all_done.wait(10)
    assert thread.alive
    thread.close()
    assert not thread.alive
    assert done == [1, 2, 3]
    with pytest.raises(RuntimeError, match="shutting down"), thread.adding():
        work.append(4)
    assert work == []
