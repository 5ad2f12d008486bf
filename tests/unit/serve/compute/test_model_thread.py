from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from heliostat.serve.compute.model_thread import ModelThread
from tests.waiting import until


class Passes:
    """A model whose passes work, fail or wait as the test says; each turn is one pass."""

    def __init__(self) -> None:
        self.work: list[str] = []
        self.done: list[str] = []
        self.trial_fails = False
        self.go = threading.Event()
        self.thread = ModelThread("passes", lambda: self.work, self.turn, trial=self.trial, pass_seconds=0.05)

    def turn(self) -> None:
        with self.thread.lock:
            what = self.work.pop(0)
        try:
            self.thread.attempt(lambda: self.one(what))
        except ValueError:
            self.done.append("failed")

    def one(self, what: str) -> None:
        if what == "waits":
            assert self.go.wait(60)
        if what == "fails":
            raise ValueError(what)
        self.done.append(what)

    def trial(self) -> None:
        self.done.append("trial")
        if self.trial_fails:
            raise ValueError("nothing works")

    def run(self, *work: str) -> None:
        """Runs these passes to the end."""
        with self.thread.adding():
            self.work.extend(work)
        until(lambda: len([one for one in self.done if one != "trial"]) == len(work), "not so", 60)

    def error(self) -> str:
        try:
            self.thread.check()
        except RuntimeError as error:
            return str(error)
        return ""


@pytest.fixture
def passes() -> Iterator[Passes]:
    found = Passes()
    yield found
    found.go.set()
    found.thread.close()


def test_a_model_that_fails_at_its_trial_too_is_unhealthy_until_a_pass_works(passes: Passes) -> None:
    assert passes.error() == ""
    passes.trial_fails = True
    passes.run("fails")
    until(lambda: "every pass of the model fails" in passes.error(), "not so", 60)
    passes.done.clear()
    passes.run("works")
    until(lambda: passes.error() == "", "not so", 60)


def test_requests_that_cannot_be_computed_leave_the_model_healthy(passes: Passes) -> None:
    passes.run(*["fails"] * 20)
    until(lambda: passes.done.count("trial") == 20, "not so", 60)
    assert passes.error() == ""


def test_a_pass_that_does_not_end_is_unhealthy_as_long_as_it_lasts(passes: Passes) -> None:
    with passes.thread.adding():
        passes.work.append("waits")
    until(
        lambda: passes.error() == "a pass of the model has not ended after 0.05 s (serve.timeout_seconds)", "not so", 60
    )
    passes.go.set()
    until(lambda: passes.error() == "", "not so", 60)
    assert passes.done == ["waits"]


def test_turns_are_taken_while_there_is_work_and_none_after_the_end() -> None:
    work: list[int] = []
    done: list[int] = []
    all_done = threading.Event()

    def turn() -> None:
        with thread.lock:
            done.append(work.pop())
        if len(done) == 3:
            all_done.set()

    thread = ModelThread("turns", lambda: work, turn, trial=lambda: None, pass_seconds=60)
    with thread.adding():
        work.extend([3, 2, 1])
    assert all_done.wait(10)
    thread.check()
    thread.close()
    with pytest.raises(RuntimeError, match="has ended"):
        thread.check()
    assert done == [1, 2, 3]
    with pytest.raises(RuntimeError, match="shutting down"), thread.adding():
        work.append(4)
    assert work == []
