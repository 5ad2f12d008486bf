"""What is said of a run that failed."""

from __future__ import annotations

import subprocess
import sys

from heliostat.infra.metrics.catalogue import LABELS
from heliostat.train.launch import DriverChannel, innermost, reason

FULL = """Task was killed due to the node running low on memory.
Memory on the node (IP: 127.0.0.1, ID: ab) was 22.31GB used / 23.49GB limit (0.950000), which is over the threshold.
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/x. Consider more memory."""


class GroupError(RuntimeError):
    """The way Ray Train tells of workers that failed."""

    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = worker_failures


def test_the_first_workers_last_line_is_the_reason() -> None:
    cause = ValueError("Traceback:\n  somewhere\nValueError: no such column\n")
    assert reason(GroupError({1: cause})) == "worker 1: ValueError: no such column"


def test_the_cause_of_an_error_is_what_counts() -> None:
    error = RuntimeError("controller failed")
    error.__cause__ = OSError("disk full")
    assert innermost(error) == "disk full"
    assert innermost(RuntimeError()) == "RuntimeError"


def test_a_machine_without_memory_is_named_as_such() -> None:
    assert innermost(RuntimeError(FULL)).startswith("a machine ran out of memory (22.31GB used / 23.49GB limit)")


def test_the_channel_says_why_workers_begin_anew() -> None:
    channel = DriverChannel()
    told = [channel.begin(), channel.begin()]
    channel.ask_to_save()
    channel.saved()
    told.append(channel.begin())
    for rank in (1, 0):
        channel.shrink(8, rank)
    told += [channel.begin(), channel.begin()]
    assert told == ["", "lost_worker", "resize", "out_of_memory", "lost_worker"]
    assert {*told} == {"", *LABELS["restart_reason"].values}


def test_the_channel_is_a_process_without_torch() -> None:
    heavy = "print([one for one in ('torch', 'pandas', 'ray.train') if one in sys.modules])"
    program = f"import sys; from heliostat.train.launch import DriverChannel; {heavy}"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
