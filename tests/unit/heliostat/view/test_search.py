"""A search in the terminal, as people and scripts read it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from heliostat.tune.state import SearchState
from heliostat.tune.trials import Trial
from heliostat.view.search import MOST_ROWS, _Lines, headline, searching, seconds_left, show_search, table
from heliostat.view.terminal import View
from tests.trials import CONFIRMED, state, trial

FINISHED, PAUSED = trial(0, [0.5, 0.9, 0.7, 0.8]), trial(1, [0.6, 0.7])
FAILED, STOPPED = trial(2, [0.5], error="loss is [/nan]\nat step 7"), trial(3, [0.4], stopped="[red]by a user")
GOING = trial(4, [0.5], {"learning_rate": 1e-3, "schedule": "[/x] :cat:"}, until=1)
ALL = [FINISHED, PAUSED, FAILED, STOPPED, GOING]


def printed(trials: list[Trial], before: SearchState | None = None, terminal: bool = False, width: int = 200) -> str:
    """What is printed of a search whose trials come to be what they are one after another."""
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False
    )
    with searching(console, before) as update:
        for count in range(len(trials) + 1):
            update(state([*trials[:count], *(replace(one, scores=(), error=None) for one in trials[count:])]))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def lines_of(console: Console) -> list[str]:
    """The lines that are not empty: Rich ends a bar that it has not drawn with one."""
    return [line for line in str(console.file.getvalue()).splitlines() if line]  # type: ignore[attr-defined]


def drawn(found: SearchState, width: int = 200) -> list[list[str]]:
    """The words of each line of the live table."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(table(found))
    return [line.split() for line in str(console.file.getvalue()).splitlines()]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELIOSTAT_PROGRESS", raising=False)


def test_without_a_terminal_there_is_a_line_for_each_trial_that_has_ended_and_nothing_else() -> None:
    stopped = replace(STOPPED, stopped=None, until=0.5)
    console = Console(file=io.StringIO(), width=200)
    with searching(console) as update:
        for trials in ([], [FINISHED], [FINISHED, PAUSED, FAILED, stopped, GOING], ALL, ALL):
            update(state(trials))
    assert lines_of(console) == [
        "  trial 0 (1 of 8): learning_rate 0.1, schedule cosine: finished, accuracy 0.9",
        "  trial 2 (2 of 8): learning_rate 0.001, schedule cosine: failed, ran 25 %, accuracy 0.5: "
        "loss is [/nan] at step 7",
        "  trial 3 (3 of 8): learning_rate 0.0001, schedule cosine: stopped, ran 25 %, accuracy 0.4: [red]by a user",
    ]


def test_the_line_of_a_run_on_a_new_seed_says_what_it_confirms() -> None:
    console = Console(file=io.StringIO(), width=200)
    with searching(console) as update:
        update(state(CONFIRMED[:4]))
    assert lines_of(console)[-1] == (
        "  trial 3 (4 of 8): learning_rate 0.1, schedule cosine: finished, confirms trial 0 on seed 1000, accuracy 0.8"
    )


def test_a_resumed_search_says_nothing_again_of_trials_that_had_ended() -> None:
    console = Console(file=io.StringIO(), width=200)
    with searching(console, state([FINISHED, PAUSED])) as update:
        update(state([FINISHED, PAUSED]))
        update(state([FINISHED, replace(PAUSED, stopped="enough")]))
    (line,) = lines_of(console)
    assert line.startswith("  trial 1 (2 of 8): ")


def test_a_terminal_shows_the_table_and_keeps_lines_of_failed_trials_only() -> None:
    said = printed(ALL, terminal=True)
    assert "trial 2 (" in said
    assert "trial 0 (" not in said
    assert "tune: starting workers" in said
    assert said.count("best so far") >= 1, "the last state is drawn before the table goes"


def test_the_followers_of_a_job_get_lines_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSTAT_PROGRESS", "json")
    lines = printed(ALL).splitlines()
    assert json.loads(lines[0])["progress"]["text"] == "tune: starting workers"
    assert json.loads(lines[-1]) == {"progress": None}
    assert len([line for line in lines if line.startswith("  trial ")]) == 3


def test_the_live_table_has_what_is_trained_and_the_best_so_far() -> None:
    other = trial(5, [0.99], until=0.5)
    found = drawn(state([*ALL, other], running=[4], note="waits for a node"))
    assert ["waits", "for", "a", "node"] in found
    at = found.index(["in", "training"])
    best = found.index(["best", "so", "far"])
    assert [line[:1] for line in found[at:best] if line[:1] and line[0].isdigit()] == [["4"]]
    assert ["4", "0.001", "[/x]", ":cat:", "0.5", "25", "%", "training"] in found
    assert [line[0] for line in found[best:] if line and line[0].isdigit()] == ["0", "1", "5", "4", "3"]
    assert ["5", "1e-05", "cosine", "0.99", "25", "%", "waiting"] not in found, "learning_rate is 0.1 for number 5"
    assert ["5", "0.1", "cosine", "0.99", "25", "%", "waiting"] in found


def test_a_search_of_thousands_of_trials_is_a_table_of_one_screen() -> None:
    many = [trial(number, [0.5], until=1) for number in range(2000)]
    found = drawn(state(many, running=range(64), wanted=2000))
    assert len(found) < 40
    assert ["in", "training", "(52", "more)"] in found


def test_nothing_is_wider_than_the_terminal() -> None:
    values = {f"train.adapter.key{at}": "x" * 50 for at in range(12)}
    found = drawn(state([trial(0, [0.5], values, until=1)], running=[0], keys=tuple(values)), width=60)
    assert max(len(" ".join(line)) for line in found) <= 60


def test_the_headline_says_how_far_it_is_with_time_and_cost() -> None:
    found = state(ALL, running=[4], elapsed_seconds=400, worker_hours=0.25, idle_worker_hours=0.05, cost=1.5, left=3)
    left = 400 * 3 / (1 + 0.5 + 3 * 0.25) / 60
    assert headline(found) == (
        "5 of 8 trials (1 training, 1 paused, 1 finished, 1 stopped, 1 failed), best accuracy 0.9, 7 min so far, "
        f"about {left:.0f} min left, 0.25 worker-hours (20% idle), cost 1.50 USD"
    )
    assert headline(state([])) == "0 of 8 trials, 0 s so far, 0.00 worker-hours"


def test_the_time_that_is_left_is_not_guessed_before_a_trial_has_come_to_rest() -> None:
    assert seconds_left(state([GOING], elapsed_seconds=10, left=3)) is None
    assert seconds_left(state([FINISHED, PAUSED], elapsed_seconds=10)) is None
    assert seconds_left(state([FINISHED, PAUSED], elapsed_seconds=15, left=3)) == 30
    assert seconds_left(state([FINISHED] * 8, elapsed_seconds=10, left=0)) == 0
    assert seconds_left(state([], elapsed_seconds=10, left=3)) is None


def test_the_bar_has_promotions_before_it_though_all_trials_have_begun() -> None:
    shown: list[tuple[float, float]] = []

    class Noting:
        def show(self, text: str, done: float = 0, total: float | None = None) -> None:
            shown.append((done, total or 0))

        def say(self, line: str) -> None:
            pytest.fail(line)

    _Lines(Noting()).show(state([PAUSED] * 8, left=4))
    assert shown == [(400, 800)]


def test_failed_trials_alone_have_no_best() -> None:
    assert "best" not in headline(state([FAILED, trial(5, [], until=1, error="x")]))
    assert ["best", "so", "far"] not in drawn(state([FAILED]))


def test_the_table_at_the_end_has_the_trials_best_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show_search(View(), state(ALL))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    columns = ["trial", "learning_rate", "schedule", "accuracy", "ran", "seconds", "outcome"]
    at = lines.index(columns)
    assert [line[0] for line in lines[at + 2 : at + 7]] == ["0", "1", "4", "3", "2"]
    assert lines[at + 2] == ["0", "0.1", "cosine", "0.9", "100", "%", "6", "finished"]
    assert lines[at + 6][-6:] == ["loss", "is", "[/nan]", "at", "step", "7"]


def test_the_table_at_the_end_is_cut_and_says_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_search(View(), state([trial(number, [0.5]) for number in range(MOST_ROWS + 1200)]))
    assert "1,200 more are in trials.csv" in capsys.readouterr().out


def test_at_the_end_it_is_said_what_workers_did_and_what_they_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = state(ALL, worker_hours=1.4, idle_worker_hours=0.168, lag=4, cost=0.7)
    show_search(View(), found)
    show_search(View(), replace(found, lag=None, cost=None))
    show_search(View(), replace(found, idle_worker_hours=0.0, cost=None))
    lines = [line for line in capsys.readouterr().out.splitlines() if "idle" in line]
    assert lines == [
        "workers idle 12% of 1.40 worker-hours (tune.lag: 4; none is fastest), 0.70 USD",
        "workers idle 12% of 1.40 worker-hours",
        "workers idle 0% of 1.40 worker-hours",
    ]


def test_a_search_without_trials_has_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_search(View(), state([], keys=("learning_rate",)))
    assert "Trials, best first" in capsys.readouterr().out


def test_the_end_says_how_those_stand_that_were_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    show_search(View(), state(CONFIRMED))
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Run again on new seeds, best first")
    assert [line.split()[0] for line in lines[at + 4 : at + 6]] == ["1", "0"]
    assert lines[at + 5].rstrip().endswith("0.03 (0.005159 to 0.05484)")
    assert any(line.startswith("trial 1 is better than trial 0 by 0.03 (95% interval") for line in lines)
    assert any(line.rstrip().endswith("finished, confirms trial 0 on seed 1001") for line in lines)
    assert "best accuracy 0.84, " in headline(state(CONFIRMED))
