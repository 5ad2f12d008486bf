"""Bars in a terminal, as lines in a job's output, and back."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from heliostat.view import progress
from heliostat.view.progress import Follower, progress_bar, without_bars
from heliostat.view.terminal import View

RAY = "2026-11-30 18:23:10,953\t{} job_manager.py:581 -- {}\n"
STEP = {
    "kind": "step",
    "step": 2,
    "steps": 4,
    "samples_per_second": 1.0,
    "tokens_per_second": 1.0,
    "loss": 0.5,
    "mfu": 0,
}


def terminal() -> Console:
    """A terminal whose screen is a text."""
    return Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False, markup=False, emoji=False)


def pipe() -> Console:
    """Where there is no terminal."""
    return Console(file=io.StringIO(), width=10_000, highlight=False, markup=False, emoji=False)


def said(console: Console) -> str:
    """What has been written to one of these."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Console:
    """The output of a job, in which a training has taken its second of four steps and been validated."""
    console = pipe()
    with monkeypatch.context() as patch:
        patch.setenv(progress.VARIABLE, "json")
        patch.setattr(progress, "EVERY_SECONDS", 0.0)
        with View(console).training() as on_event:
            on_event({**STEP, "step": 1})
            on_event(STEP)
            on_event({"kind": "report", "step": 2, "metrics": {"loss": 0.7}})
    return console


def follow(output: str, console: Console, size: int = 7) -> str:
    """What a follower writes of the output, which comes in pieces of `size` characters."""
    with Follower(console) as follower:
        for place in range(0, len(output), size):
            follower.write(output[place : place + size])
    return said(console)


def test_a_bar_of_a_job_is_lines_between_those_that_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(progress.VARIABLE, "json")
    console = pipe()
    with progress_bar(console) as bar:
        bar.show("prepare")
        bar.show("prepare: scanning", 0, 10)  # a stage that begins is told at once
        bar.show("prepare: scanning", 1, 10)  # too soon
        bar.say("[/x] done")
    first, second, line, end = said(console).splitlines()
    assert json.loads(first) == {"progress": {"text": "prepare", "done": 0, "total": None}}
    assert json.loads(second) == {"progress": {"text": "prepare: scanning", "done": 0, "total": 10}}
    assert (line, json.loads(end)) == ("[/x] done", {"progress": None})


def test_a_terminal_shows_the_bar_of_a_job_and_keeps_its_lines(job: Console) -> None:
    shown = follow(said(job) + "Published shop\n", terminal())
    assert "train: loss 0.5000, 1.0 samples/s" in shown
    assert " 50 %" in shown
    assert "  step 2: validation loss 0.7" in shown
    assert "Published shop" in shown
    assert "progress" not in shown


def test_elsewhere_there_are_the_lines_alone(job: Console) -> None:
    output = RAY.format("INFO", "Runtime env is setting up.") + "Running entrypoint for job a: true\n" + said(job)
    assert follow(output + "Published shop\n", pipe()) == "  step 2: validation loss 0.7\nPublished shop\n"
    assert "Running entrypoint" in without_bars(output)
    assert "progress" not in without_bars(output)


def test_what_ray_does_before_the_command_starts_is_shown_in_the_bar_and_its_warnings_stay() -> None:
    begins, warns = RAY.format("INFO", "Runtime env is setting up."), RAY.format("WARNING", "a disk is full")
    shown = follow(begins + warns, terminal(), size=1000)
    assert "job: Runtime env is setting up." in shown
    assert "INFO" not in shown
    assert "a disk is full" in shown
    assert follow(begins + warns, pipe()) == warns


def test_a_line_that_was_cut_off_is_neither_lost_nor_shown_as_a_bar() -> None:
    assert follow('{"progress": {"te', pipe()) == ""
    assert follow("Traceback: no newline at the end", pipe()) == "Traceback: no newline at the end\n"
