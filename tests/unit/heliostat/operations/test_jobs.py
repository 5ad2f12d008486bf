"""Jobs: how they are followed, waited for, stopped and listed, on a cluster that may be away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.cluster import jobs
from heliostat.commands.common import job_address
from heliostat.infra.errors import ConfigError, JobError, NotFoundError, ResourceError
from heliostat.operations import jobs as operations
from heliostat.view.terminal import View

URL = "http://head:8265"
LOST = ResourceError("the connection is lost")
Attempt = list[str | Exception | float]
"""Chunks of a log, in the order in which they come; a number is a silence in seconds."""


class Cluster:
    """Ray's client: a stream of the log is the next of `attempts`, a state the next of `states`, then their last."""

    def __init__(self, attempts: list[Attempt], states: list[str | Exception], **more: Any) -> None:
        self.attempts, self.states, self.more = attempts, states, more
        self.stopped: list[str] = []

    @contextmanager
    def client(self, address: str, job: str = "") -> Iterator[Cluster]:
        assert address == URL
        yield self

    def get_job_info(self, job: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        given: dict[str, Any] = {"entrypoint": "true", "message": "", "metadata": {}, "driver_exit_code": None}
        times = {"start_time": 1000, "end_time": None}
        return SimpleNamespace(submission_id=job, status=state, **{**given, **times, **self.more})

    def list_jobs(self) -> list[Any]:
        return [self.get_job_info("a"), SimpleNamespace(submission_id=None)]

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        return self.states[0] not in jobs.ENDED

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for chunk in self.attempts.pop(0):
            if isinstance(chunk, Exception):
                raise chunk
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
            else:
                yield chunk


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the next calls ask a Cluster."""
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)

    def made(*attempts: Attempt, states: list[str | Exception], **more: Any) -> Cluster:
        found = Cluster(list(attempts), states, **more)
        monkeypatch.setattr(jobs, "_client", found.client)
        return found

    return made


def test_what_was_read_before_a_connection_was_lost_is_not_read_twice(cluster: Any) -> None:
    attempts: list[Attempt] = [["one\n", "tw", LOST], [LOST], ["one\ntwo\n", "th", LOST], ["one\ntwo\nthree\n"]]
    cluster(*attempts, states=["RUNNING", "SUCCEEDED"])
    assert "".join(jobs.follow(URL, "a")) == "one\ntwo\nthree\n"


def test_a_stream_that_ends_before_its_job_is_begun_again(cluster: Any) -> None:
    cluster(["one\n"], ["one\n", "two\n"], states=["PENDING", "RUNNING", "SUCCEEDED"])
    assert "".join(jobs.follow(URL, "a")) == "one\ntwo\n"


def test_a_connection_that_died_without_a_word_is_noticed_once_the_job_has_ended(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SILENT_SECONDS", 0.01)
    cluster(["one\n", 60.0], ["one\n", "two\n"], states=["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"])
    assert "".join(jobs.follow(URL, "a")) == "one\ntwo\n"


@pytest.mark.parametrize(
    "ask", [lambda: list(jobs.follow(URL, "a")), lambda: jobs.wait(URL, "a")], ids=["follow", "wait"]
)
def test_a_cluster_that_stays_away_is_an_error(cluster: Any, monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.setattr(jobs, "LOST_SECONDS", 0.05)
    cluster(*([[LOST]] * 100_000), states=["RUNNING", LOST])
    with pytest.raises(ResourceError, match="the connection is lost"):
        ask()


def test_a_job_that_there_is_not_is_not_waited_for(cluster: Any) -> None:
    cluster(states=[NotFoundError("no job a")])
    for ask in (lambda: list(jobs.follow(URL, "a")), lambda: jobs.wait(URL, "a")):
        with pytest.raises(NotFoundError):
            ask()


@pytest.mark.parametrize(
    ("state", "code", "expected"), [("FAILED", 2, 2), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 1)]
)
def test_a_job_that_does_not_succeed_is_one_line_and_its_exit_code(
    cluster: Any, state: str, code: int | None, expected: int
) -> None:
    message = "failed with exit code 2, last available logs (truncated to 20,000 chars):\nTraceback"
    cluster(["one\n"], states=[state], message=message, driver_exit_code=code)
    with pytest.raises(JobError) as caught:
        operations.follow_job("a", URL, View())
    assert str(caught.value) == f"job a: {state.lower()}: failed with exit code 2"
    assert caught.value.exit_code == expected


def test_a_cluster_that_has_just_begun_is_asked_again_to_take_a_job(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str | Exception] = [RuntimeError("500: No available agent to submit job, please try again later")] * 2

    def submit_job(**_: Any) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked = cluster(states=["RUNNING"])
    monkeypatch.setattr(asked, "submit_job", submit_job, raising=False)
    answers.append("a")
    assert jobs.submit(URL, "true") == "a"
    answers.append(RuntimeError("500: another"))
    with pytest.raises(RuntimeError, match="another"):
        jobs.submit(URL, "true")


def test_a_connection_that_is_lost_at_the_end_of_a_job_does_not_hide_how_it_ended(cluster: Any) -> None:
    cluster(["one\n"], states=["RUNNING", "FAILED", LOST, "FAILED"], driver_exit_code=3)
    with pytest.raises(JobError) as caught:
        operations.follow_job("a", URL, View())
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LOST], ids=["Ctrl-C", "lost"])
def test_who_leaves_a_job_is_told_that_it_goes_on(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def follow(*_: str) -> Iterator[str]:
        yield "step 1\n"
        raise error

    monkeypatch.setattr(jobs, "follow", follow)
    line = f"job a goes on at {URL}; look: heliostat jobs follow a; end: heliostat jobs stop a"
    with pytest.raises(type(error), match=line):
        operations.follow_job("a", URL, View())


def test_waiting_has_an_end(cluster: Any) -> None:
    cluster(states=["PENDING", "RUNNING"])
    with pytest.raises(JobError, match=r"job a: running after 0\.01 s"):
        operations.wait_for("a", URL, 0.01)
    cluster(states=["PENDING", LOST, "SUCCEEDED"])
    operations.wait_for("a", URL, 60)


def test_who_stops_a_job_is_told_what_is_waited_for_and_how_it_ended(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = cluster(states=["RUNNING", "RUNNING", "STOPPED"])
    operations.stop_job("a", URL, View())
    assert asked.stopped == ["a"]
    operations.stop_job("a", URL, View())
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    asked_for = "job a: asked to stop; it has 3 minutes, a run for its checkpoint"
    assert said == [asked_for, "job a: stopped", "job a had ended: stopped"]


def test_jobs_are_listed_by_what_they_run(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster(states=["FAILED"], metadata={operations.WHAT: "train digits"}, end_time=91_000)
    operations.list_jobs(URL)
    line = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert line == ["a", "failed", "train", "digits", "1970-01-01", "00:00:01", "UTC", "90", "s"]


def test_jobs_go_to_the_cluster_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert job_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS: 10\.0\.0\.1:6379 given; jobs need --address http://HOST:8265"):
        job_address(None)
    assert job_address(URL) == URL
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
    assert job_address(None) == "http://other:8265"
