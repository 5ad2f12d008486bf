"""What the record of a search costs: a thousand trials of one step, with its table, files, MLflow runs and metrics.

    python -m tests.benchmarks.bench_search_record

Marks: at most 5 % of the time, counted as all that the driver's thread computes (which is more than the record), and at
most 50 MB of memory from the fiftieth trial to the last.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich.console import Console

from heliostat.pipeline import prepare, sessions, tune
from heliostat.spec import load_spec
from heliostat.tune.state import SearchState
from heliostat.view.terminal import View
from tests.benchmarks.record import record

TRIALS, PART, WARM = 1000, 100, 50
MARK_SHARE, MARK_MB = 0.05, 50
SETTINGS = (
    "train.max_steps=1", "tune.space={learning_rate: {loguniform: [1e-5, 1e-1]}}", "tune.grace=1.0",
    f"tune.trials={TRIALS}", "tune.search=tpe", "tune.lag=1",
)  # fmt: skip
RECIPES = {
    "sentiment": ("data.limit=320", "data.max_length=32", "train.workers=2"),
    "tabular": ("train.workers=1",),
}
"""The marks are for the first; trials of the other take a tenth of a second, two at a time, as short as any may be."""


@dataclass
class Seen:
    """The search as a follower sees it."""

    process: psutil.Process = field(default_factory=psutil.Process)
    ended_at: dict[int, float] = field(default_factory=dict)
    """Trials that have ended -> seconds on the clock."""
    memory: dict[int, int] = field(default_factory=dict)
    """Trials that have ended -> bytes of the driver."""

    def look(self, ended: int) -> None:
        """Notes time and memory."""
        self.ended_at.setdefault(ended, time.perf_counter())
        self.memory.setdefault(ended, self.process.memory_info().rss)

    def seconds(self, first: int, last: int) -> float:
        """A trial, from one that has ended to another."""
        begin, end = self.nearest(first), self.nearest(last)
        return (self.ended_at[end] - self.ended_at[begin]) / (end - begin)

    def nearest(self, ended: int) -> int:
        """The look when nearly so many had ended."""
        return min(self.ended_at, key=lambda one: abs(one - ended))


def main() -> None:
    """Runs a search of each recipe."""
    with tempfile.TemporaryDirectory() as folder, sessions.session(load_spec("sentiment")):
        found = {recipe: measured(folder, recipe, settings) for recipe, settings in RECIPES.items()}
    first = found["sentiment"]
    holds = first["driver_thread_share_of_time"] <= MARK_SHARE and first["grown_mb"] <= MARK_MB
    record("search_record", {"trials": TRIALS, **found, "holds": holds})


def measured(folder: str, recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """A search of TRIALS trials."""
    spec = load_spec(recipe, [f"storage.url={folder}/{recipe}", *SETTINGS, *settings])
    view, seen = View(Console(file=io.StringIO())), Seen()
    prepared = prepare.run(spec, view)
    with followed(seen):
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        tune.run(spec, prepared, view, "many")
        wall, thread = time.perf_counter() - wall, time.thread_time() - thread
        process = time.process_time() - process
    return {
        "seconds": round(wall, 1),
        "driver_thread_share_of_time": round(thread / wall, 4),
        "driver_process_cpu_seconds": round(process, 1),
        "first_seconds_a_trial": round(seen.seconds(WARM, WARM + PART), 3),
        "last_seconds_a_trial": round(seen.seconds(TRIALS - PART, TRIALS), 3),
        "grown_mb": round((seen.memory[max(seen.memory)] - seen.memory[seen.nearest(WARM)]) / 2**20, 1),
    }


@contextmanager
def followed(seen: Seen) -> Iterator[None]:
    """Lets `seen` look at each state of a search that its followers are told."""
    state_of = tune.running_state  # type: ignore[attr-defined]

    def looking(*arguments: Any) -> SearchState:
        state: SearchState = state_of(*arguments)
        seen.look(sum(bool(trial.scores) for trial in state.trials))
        return state

    tune.running_state = looking  # type: ignore[attr-defined,assignment]
    try:
        yield
    finally:
        tune.running_state = state_of  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
