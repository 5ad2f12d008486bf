"""A search in the terminal: a live table while it runs, lines where there is no terminal, and the trials at its end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from heliostat.tune.choice import told
from heliostat.tune.price import usd
from heliostat.tune.ranking import is_lost
from heliostat.tune.reports.spent import summary, worker_hours
from heliostat.tune.reports.table import ENDED, FAILED, RUNNING, STATES, Row, one_line, row, rows, state_of
from heliostat.tune.standing import Standing, Verdict
from heliostat.tune.state import SearchState
from heliostat.tune.trials import SEED
from heliostat.view.progress import VARIABLE, Bar, progress_bar
from heliostat.view.terminal import View, number

MOST_RUNNING, MOST_BEST = 12, 5
"""Trials in the live table."""
MOST_ROWS = 50
"""Trials in the table at the end; the CSV has all."""
_PER_SECOND = 2


@contextmanager
def searching(console: Console, before: SearchState | None = None) -> Iterator[Callable[[SearchState], None]]:
    """Gives the function that shows how a search stands; it is to be called after each event.

    Trials that had ended `before`, in a search that is resumed, get no line.
    """
    said = _Said(before)
    if console.is_terminal and not console.is_dumb_terminal and os.environ.get(VARIABLE) != "json":
        with _Table(console) as table:
            yield lambda state: _update(table, said, state, (FAILED,))
        return
    with progress_bar(console) as bar:
        bar.show("tune: starting workers")
        yield lambda state: _update(_Lines(bar), said, state, ENDED)


class _Shown(Protocol):
    def show(self, state: SearchState) -> None: ...

    def say(self, line: str) -> None: ...


def _update(shown: _Shown, said: _Said, state: SearchState, states: tuple[str, ...]) -> None:
    for line in said.lines(state, states):
        shown.say(line)
    shown.show(state)


class _Table:
    """The live table, which is gone when it ends; it is made anew where it is drawn, not for each event."""

    def __init__(self, console: Console) -> None:
        self._state: SearchState | None = None
        self._live = Live(console=console, get_renderable=self._drawn, transient=True, refresh_per_second=_PER_SECOND)

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        return Text("tune: starting workers") if self._state is None else table(self._state)

    def show(self, state: SearchState) -> None:
        self._state = state

    def say(self, line: str) -> None:
        self._live.console.print(line, soft_wrap=True, markup=False)


class _Lines:
    """A bar for those who follow this job, and lines."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def show(self, state: SearchState) -> None:
        done = trained(state)
        left = max(state.wanted - done, 0.0) if state.left is None else state.left
        self._bar.show(f"tune: {headline(state)}", 100 * done, 100 * (done + left))

    def say(self, line: str) -> None:
        self._bar.say(line)


class _Said:
    """Which trials have had their line."""

    def __init__(self, before: SearchState | None) -> None:
        self._states = {one.number: state_of(one, before) for one in before.trials} if before else {}

    def lines(self, state: SearchState, states: tuple[str, ...]) -> Iterator[str]:
        """A line for each trial that has come to one of the states since the last call."""
        now = {trial.number: state_of(trial, state) for trial in state.trials}
        new = [
            one for one in state.trials if now[one.number] in states and self._states.get(one.number) != now[one.number]
        ]
        self._states = now
        if not new:
            return
        by_number, ended = {one.number: one for one in state.trials}, sum(one in ENDED for one in now.values())
        for at, trial in enumerate(new, start=ended - len(new) + 1):
            yield f"  {line(state, row(state, trial, by_number), at)}"


def line(state: SearchState, one: Row, ended: int) -> str:
    """A trial that has ended as the search's `ended`th, in one line."""
    ran = f", ran {one.progress}" if one.share < 1 else ""
    found = ", ".join(part for part in (one.whose, measured(state, one.best)) if part)
    more = (f", {found}" if found else "") + (f": {one.reason}" if one.reason else "")
    values = {key: value for key, value in one.values.items() if key != SEED}  # said by `whose`
    return f"trial {one.number} ({ended} of {state.wanted}): {tried(values)}: {one.state}{ran}{more}"


def table(state: SearchState) -> RenderableType:
    """What is shown while a search runs: a line on the whole, the trials that are trained, and the best so far."""
    by_number = {trial.number: trial for trial in state.trials}
    running = [trial for trial in state.trials if state_of(trial, state) == RUNNING]
    goals = state.objectives
    best = [trial for trial in state.ranked if trial.scores and not is_lost(trial, goals)]
    parts: list[RenderableType] = [Text(headline(state), style="bold")]
    if state.note:
        parts.append(Text(state.note))
    for title, found, most in (("in training", running, MOST_RUNNING), ("best so far", best, MOST_BEST)):
        if found:
            shown = [row(state, trial, by_number) for trial in found[:most]]
            more = f" ({len(found) - most} more)" if title == "in training" and len(found) > most else ""
            parts.append(_trials(f"{title}{more}", state, shown))
    return Group(*parts)


def _trials(title: str, state: SearchState, found: list[Row]) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title), title_justify="left")
    for name in ("trial", *state.searched, *(one.metric for one in state.objectives), "ran", "state"):
        grid.add_column(Text(name), overflow="ellipsis", no_wrap=True)
    for one in found:
        grid.add_row(*(Text(cell) for cell in cells(state, one)))
    return grid


def cells(state: SearchState, one: Row) -> list[str]:
    """A trial's number, values, objectives, progress and state."""
    values = [number(one.values[key]) if key in one.values else "" for key in state.searched]
    best = [number(one.best[goal.metric]) if goal.metric in one.best else "-" for goal in state.objectives]
    return [str(one.number), *values, *best, one.progress, one.state]


def headline(state: SearchState) -> str:
    """How a search stands, in a line: trials by state, the best so far, time and cost."""
    counts = Counter(state_of(trial, state) for trial in state.trials)
    by_state = [f"{counts[name]} {name}" for name in STATES if counts[name]]
    parts = [f"{len(state.trials)} of {state.wanted} trials" + (f" ({', '.join(by_state)})" if by_state else "")]
    if best := best_values(state):
        parts.append(f"best {best}")
    parts.append(f"{duration(state.elapsed_seconds)} so far")
    left = seconds_left(state)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    parts.append(worker_hours(state))
    if state.cost is not None:
        parts.append(f"cost {usd(state.cost)}")
    return ", ".join(parts)


def best_values(state: SearchState) -> str:
    """The objectives of the trial that is taken, their means if it has several runs; empty if there is none."""
    if state.chosen is None:
        return "none within tune.choose" if state.unmet else ""
    return measured(state, row(state, state.chosen, {}).best)


def measured(state: SearchState, best: Mapping[str, float]) -> str:
    """The objectives with their values."""
    return ", ".join(f"{one.metric} {number(best[one.metric])}" for one in state.objectives if one.metric in best)


def tried(values: Mapping[str, Any]) -> str:
    """A trial's values in a line."""
    return one_line(", ".join(f"{key} {number(value)}" for key, value in values.items()))


def trained(state: SearchState) -> float:
    """What has been trained, in full trials."""
    return sum(trial.share for trial in state.trials)


def seconds_left(state: SearchState) -> float | None:
    """Time that the training that is left will take if it is as fast as that before, which waiting and starting is a
    part of; None before the first trial has come to rest."""
    done = trained(state)
    if state.left is None or not done or all(trial.is_training for trial in state.trials):
        return None
    return state.elapsed_seconds * state.left / done


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def show_search(view: View, state: SearchState) -> None:
    """Prints the trials, best first."""
    found = rows(state)
    several = ["front"] if len(state.objectives) > 1 else []
    columns = [
        "trial",
        *state.searched,
        *(one.metric for one in state.objectives),
        *several,
        "ran",
        "seconds",
        "outcome",
    ]
    view.table("Trials, best first", columns, [_final(state, one) for one in found[:MOST_ROWS]])
    if len(found) > MOST_ROWS:
        view.say(f"{len(found) - MOST_ROWS:,} more are in trials.csv")
    if several and state.chosen:
        view.say(f"tune.choose ({told(state.rule)}) takes trial {state.chosen.number} of the Pareto front")
    if state.verdict:
        _show_verdict(view, state, state.verdict)
    if state.note:
        view.say(f"ended: {state.note}")
    if spent := summary(state):
        view.say(spent)


def _show_verdict(view: View, state: SearchState, verdict: Verdict) -> None:
    """Prints the configurations over their seeds, and whether the best is better than the second."""
    goal, most = state.objective.metric, verdict.standings[:MOST_ROWS]
    columns = ["trial", *state.searched, f"mean {goal}", "deviation", "runs", "behind the best"]
    if most:
        view.table(f"{verdict.title}, best first", columns, [_stands(state, one) for one in most])
    for sentence in verdict.sentences:
        view.say(sentence)


def _stands(state: SearchState, one: Standing) -> list[object]:
    values = [one.values.get(key, "") for key in state.searched]
    over = one.over_seeds
    runs = f"{over.runs}, and {over.failed} failed" if over.failed else over.runs
    spread = "-" if over.deviation is None else over.deviation
    return [one.number, *values, over.mean, spread, runs, one.behind.interval if one.behind else ""]


def _final(state: SearchState, one: Row) -> list[object]:
    values = [one.values.get(key, "") for key in state.searched]
    best = [one.best.get(goal.metric, "-") for goal in state.objectives]
    front = [] if one.is_front is None else ["yes" if one.is_front else ""]
    role = f", {one.whose}" if one.whose else ""
    how = f"{one.reason or one.state}{role}"
    return [one.number, *values, *best, *front, one.progress, round(one.seconds, 1), how]
