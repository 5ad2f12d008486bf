from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import psutil  # type: ignore[import-untyped]
import pytest

from heliostat.cluster.session import processes
from tests.waiting import until

# Starts a child without the mark and prints its ID, as Ray's agents lose theirs.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={})
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def mark() -> str:
    return f"test-{uuid4().hex}"


@pytest.fixture
def parent(mark: str) -> Iterator[tuple[int, int]]:
    """The IDs of a process with the mark and of its child without."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, env={processes.MARK: mark}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process.pid, child
        processes.end([psutil.Process(pid) for pid in (process.pid, child) if psutil.pid_exists(pid)], seconds=0)


def test_a_family_is_found_by_its_mark_and_ends(mark: str, parent: tuple[int, int]) -> None:
    found = processes.family(mark)
    assert {process.pid for process in found} == set(parent)
    assert processes.family("another") == []
    assert processes.end(found, seconds=0) == 2
    assert processes.family(mark) == []


def test_a_process_that_ends_by_itself_is_not_killed(mark: str) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    with subprocess.Popen(command, env={processes.MARK: mark}):
        found = processes.family(mark)
        assert len(found) == 1
        assert processes.end(found, seconds=10) == 0


def test_this_process_is_never_ended() -> None:
    assert processes.end([psutil.Process()], seconds=0) == 0


def test_only_the_orphans_of_dead_commands_are_ended() -> None:
    ours, dead = processes.new_process_mark(), "999999999-17-abcdef"
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        subprocess.Popen(sleep, env={processes.MARK: ours}) as alive,
        subprocess.Popen(sleep, env={processes.MARK: dead}) as orphan,
    ):

        def is_ended() -> bool:  # a process that starts has its environment, and so its mark, a moment later
            processes.end_orphans()
            return processes.started_at(orphan.pid) is None

        try:
            until(is_ended, "the orphan has ended", 30)
            assert processes.started_at(alive.pid) is not None
        finally:
            alive.kill()
            orphan.kill()


@pytest.mark.parametrize(
    ("mark", "orphaned"),
    [
        (f"{os.getpid()}-{processes.started_at(os.getpid())}-abc", False),
        (f"{os.getpid()}-1-abc", True),  # the ID was given to another process
        ("999999999-1-abc", True),
        ("detached-abc", False),
    ],
    ids=["alive", "another", "gone", "detached"],
)
def test_whose_command_is_gone(mark: str, orphaned: bool) -> None:
    assert processes._is_orphaned(mark) is orphaned


def test_no_start_for_a_process_that_is_only_an_exit_status() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert processes.started_at(process.pid) is None
    process.wait()
    assert processes.started_at(process.pid) is None
