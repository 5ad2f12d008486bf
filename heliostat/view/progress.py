"""Progress: a bar in a terminal, or lines in the output of a job, from which its followers draw the bar.

A job has no terminal. Where HELIOSTAT_PROGRESS is `json`, a command writes what its bars show into its output, an
object a line:

    {"progress": {"text": "train: loss 0.3912", "done": 36, "total": 180}}
    {"progress": null}

and `Follower` turns that back into bars. Without a terminal, and without the variable, there is no bar at all.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

VARIABLE = "HELIOSTAT_PROGRESS"
EVERY_SECONDS = 2.0
"""Shortest time between two lines of a bar: a day of training is 43,200 lines, some 5 MB."""
_KEY = "progress"
_OF_RAY = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\s+INFO\s+\S+\.py:\d+ -- (?P<said>.*)|Running entrypoint for job "
)


class Bar(Protocol):
    """What a stage shows while it works."""

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        """Shows `done` of `total` in the bar; where `total` is None, the last one, or a spinner if there was none."""

    def say(self, line: str) -> None:
        """Prints a line that stays, above the bar."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Bar]:
    """A bar for the length of the block: in the terminal, or as lines for those who follow this job."""
    if os.environ.get(VARIABLE) != "json":
        with _Drawn(console) as drawn:
            yield drawn
        return
    written = _Written(console)
    try:
        yield written
    finally:
        written.end()


class _Drawn:
    """A bar in a terminal, which is gone when it ends; elsewhere, nothing but its lines."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> _Drawn:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        self._progress.update(self._task, description=text, completed=done, total=total)

    def say(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True, markup=False)


class _Written:
    """A bar as lines of JSON: one where a stage begins, then one in EVERY_SECONDS at most."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""
        self._total: float | None = None
        self._next = 0.0

    def show(self, text: str, done: float = 0, total: float | None = None) -> None:
        self._total = total or self._total
        begins = done == 0 and text != self._text
        if begins or time.monotonic() >= self._next:
            self._text, self._next = text, time.monotonic() + EVERY_SECONDS
            self._write({"text": text, "done": done, "total": self._total})

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    def end(self) -> None:
        self._write(None)

    def _write(self, value: dict[str, Any] | None) -> None:
        # One call: a job's errors go into the same file, and two calls could have one of their lines between them.
        self._console.file.write(json.dumps({_KEY: value}) + "\n")
        self._console.file.flush()


def read(line: str) -> tuple[bool, dict[str, Any] | None]:
    """Whether a line of a job's output is one of its bars', and what the bar shows; None where it has ended."""
    if not line.startswith('{"' + _KEY + '":'):
        return False, None
    try:
        return True, json.loads(line)[_KEY]
    except ValueError:  # cut off: its command was killed
        return True, None


def without_bars(output: str) -> str:
    """A job's output without the lines of its bars."""
    return "".join(line for line in output.splitlines(keepends=True) if not read(line)[0])


class Follower:
    """Prints the output of a job as its command would have printed it here, with bars where this is a terminal.

    Ray's own lines at level INFO, and the one that begins the job, are shown in the bar only; its warnings and errors,
    and all that the command says, stay.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: _Drawn | None = None
        self._rest = ""

    def __enter__(self) -> Follower:
        self._show({"text": "job: starting"})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._rest:
            self._line(self._rest)
        self._end()

    def write(self, text: str) -> None:
        """Takes the next piece of output, which may begin and end within a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        is_progress, shown = read(line)
        if is_progress:
            self._show(shown) if shown else self._end()
        elif of_ray := _OF_RAY.match(line):
            self._show({"text": f"job: {of_ray['said'] or 'its command starts'}"})
        elif self._bar:
            self._bar.say(line)
        else:
            self._console.file.write(f"{line}\n")  # as it is, with its tabs
            self._console.file.flush()

    def _show(self, shown: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            return
        if self._bar is None:
            self._bar = _Drawn(self._console)
            self._bar.__enter__()
        self._bar.show(**shown)

    def _end(self) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
            self._bar = None
