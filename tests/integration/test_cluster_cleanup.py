"""However a command ends, its Ray goes with it; and what cannot be had is refused before a Ray starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session import address, processes
from heliostat.cluster.session.session import session
from heliostat.infra.errors import ResourceError
from tests.waiting import until

# Ends as the test wants it to, once it has printed the IDs of the processes that must not outlive it. The first is that
# of a process that has left the actor which started it, so that nothing in Ray ends it.
COMMAND = """
import subprocess, time
import psutil, ray
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session.session import session

@ray.remote
class Actor:
    def start(self):
        return subprocess.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE).stdout

with session(ClusterConfig(num_cpus=1), cpus=1):
    actor = Actor.remote()
    stray = int(ray.get(actor.start.remote()))
    print(stray, *[one.pid for one in psutil.Process().children(recursive=True)], flush=True)
    {ending}
"""
AT_WORK = """
    try:
        print("at work", flush=True)
        time.sleep(600)
    finally:
        print("Ray answers:", ray.get(ray.remote(lambda: 1 + 1).remote(), timeout=60), flush=True)
"""

pytestmark = pytest.mark.usefixtures("home", "signals_heeded")


def command(ending: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A command that has a Ray of its own, and the IDs of the processes of that Ray."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(ending=ending)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) > 3, process.communicate()
    return process, pids


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if processes.started_at(pid) is not None]


def test_nothing_is_left_after_an_error_and_the_logs_are_named(home: Path) -> None:
    process, pids = command("raise RuntimeError('boom')")
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert alive(pids) == []
    assert "RuntimeError: boom" in errors
    assert f"the logs of Ray and its workers are in {home}" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ray_is_there_for_the_clean_up_after_a_signal_to_the_group_and_nothing_is_left(number: signal.Signals) -> None:
    process, pids = command(AT_WORK)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    os.killpg(process.pid, number)  # as `timeout`, a closed terminal and Ctrl-C do
    said, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors or "Terminated" in errors
    assert "Ray answers: 2" in said
    assert alive(pids) == []


def test_nothing_is_left_after_sigkill() -> None:
    process, pids = command("time.sleep(600)")
    process.kill()
    process.communicate(timeout=30)
    until(lambda: alive(pids) == [], "the end of all processes of its Ray", 60)


def test_more_cpus_than_there_are_are_refused_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(ResourceError, match=r"train\.workers: 4096 CPUs needed"), session(ClusterConfig(), cpus=4096):
        pass
    assert time.monotonic() - start < 1


def test_a_ray_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(address, "ANSWER_SECONDS", 0.5)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ResourceError, match="not as Ray does"), session(ClusterConfig(), cpus=1):
            pass
        assert time.monotonic() - start < 10
