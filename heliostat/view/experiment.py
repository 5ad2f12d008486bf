"""Prints a comparison of two versions in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from heliostat.serve.experiment.stats import ALPHA, Arm, Difference
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.serve.experiment.coordinator import ExperimentStatus


QUANTILES = (0.5, 0.95, 0.99)


def show_experiment_status(found: ExperimentStatus, *, ended: bool, view: View) -> None:
    """Prints the results of both versions, and the differences."""
    from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE
    from heliostat.serve.experiment.stats import compare_errors, compare_feedback, compare_times

    experiment = found.experiment
    baseline, candidate = found.arms[BASELINE], found.arms[CANDIDATE]
    rows = [
        [BASELINE, experiment.baseline, f"{1 - experiment.share:.0%}", *_cells(baseline)],
        [CANDIDATE, experiment.candidate, f"{experiment.share:.0%}", *_cells(candidate)],
    ]
    state = "ended" if ended else "running"
    columns = ["", "version", "share", "requests", "failed", *(f"p{q * 100:g} ms" for q in QUANTILES), "feedback"]
    view.table(f"{found.name}: experiment of {found.started:%Y-%m-%d %H:%M} UTC, {state}", columns, rows)
    view.say(_line("failed", compare_errors(baseline, candidate), lambda value: f"{value * 100:+.2f} points"))
    view.say(_line("time", compare_times(baseline, candidate), lambda value: f"{math.exp(value):.2f} times"))
    view.say(_line("feedback", compare_feedback(baseline, candidate), lambda value: f"{value:+.3f}"))
    if found.verdict:
        view.say(found.verdict)


def _cells(arm: Arm) -> list[object]:
    rate = f"{arm.errors} ({arm.errors / arm.requests:.2%})" if arm.errors else "0"
    times = ["" if (seconds := arm.quantile(q)) is None else f"{seconds * 1000:.1f}" for q in QUANTILES]
    return [arm.requests, rate, *times, f"{arm.feedback.mean:.3f} ({arm.feedback.n})" if arm.feedback.n else ""]


def _line(what: str, found: Difference | None, shown: Callable[[float], str]) -> str:
    """The difference of candidate and baseline, in one line."""
    if found is None:
        return f"{what}: too little is known"
    called = "a difference" if found.p_value < ALPHA else "no difference seen"
    between = f"{shown(found.low)} to {shown(found.high)}"
    return f"{what}: {shown(found.estimate)} ({between}), p = {found.p_value:.2g}: {called}"
