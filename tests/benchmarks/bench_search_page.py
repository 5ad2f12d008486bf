"""The page of a search of 2,000 trials, of none and of failed ones only. Mark: 2 s to make it, and 2 s to see it."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import start_run
from heliostat.tune.reports.files import to_csv, to_json
from heliostat.tune.reports.search_report import render
from heliostat.tune.reports.tracking import TrialRuns
from heliostat.tune.state import PageState
from heliostat.tune.trials import Trial
from tests import tools
from tests.benchmarks.record import record
from tests.browser import chromium
from tests.trials import state, trial

TRIALS, REPEATS, LOGGED = 2000, 5, 100
MARK_SECONDS = 2.0


def main() -> None:
    """Measures making each page and seeing it in Chromium, the other files of a search, and a child run in MLflow."""
    pages = {"many": page_of(searched(TRIALS)), "none": page_of([]), "failed_only": page_of(failed(TRIALS))}
    started = time.perf_counter()
    render(pages["many"])
    first = time.perf_counter() - started
    made = {name: median(partial(render, page)) for name, page in pages.items()}
    seen = {name: seconds_to_see(render(page)) for name, page in pages.items()}
    search = pages["many"].search
    record(
        "search_page",
        {
            "trials": TRIALS,
            "first_page_with_imports_seconds": round(first, 2),
            "make_seconds": made,
            "see_seconds": seen,
            "csv_seconds": median(lambda: to_csv(search)),
            "json_seconds": median(lambda: to_json(search)),
            "mlflow_cpu_seconds_a_trial": cpu_seconds_logged(searched(LOGGED)) / LOGGED,
            "holds": max(*made.values(), *seen.values()) <= MARK_SECONDS,
        },
    )


def searched(count: int) -> list[Trial]:
    """Trials of five keys, a third of them trained in full."""
    rng = random.Random(0)
    return [
        trial(number, [rng.random() for _ in range(rng.choice([1, 2, 4]))], values(rng), stopped="the end")
        for number in range(count)
    ]


def failed(count: int) -> list[Trial]:
    """Trials that failed, each with an error of a few lines."""
    rng = random.Random(1)
    return [trial(number, [], values(rng), until=1, error="RuntimeError: <no>\n" * 5) for number in range(count)]


def values(rng: random.Random) -> dict[str, Any]:
    """Of a trial."""
    found = {"learning_rate": 10 ** rng.uniform(-5, -2), "weight_decay": rng.random(), "warmup": rng.random()}
    return {**found, "global_batch_size": rng.choice([16, 32, 64]), "schedule": rng.choice(["cosine", "linear"])}


def page_of(trials: list[Trial]) -> PageState:
    """The page of these trials."""
    return PageState(state(trials, wanted=len(trials)), "", {}, ["learning_rate"], ["global_batch_size"], 1, 3)


def median(work: Callable[[], object]) -> float:
    """Seconds, the median of a few times."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 3)


def seconds_to_see(html: str) -> float:
    """Seconds until Chromium has loaded and laid out the page."""
    tools.add_to_path()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = Path(folder) / "report.html"
        file.write_text(html, encoding="utf-8")

        def see() -> None:
            browser.get(file.as_uri())
            browser.execute_script("return document.body.scrollHeight")

        return median(see)


def cpu_seconds_logged(trials: list[Trial]) -> float:
    """Seconds of a core for the child runs of these trials, in MLflow's own database."""
    with tempfile.TemporaryDirectory() as folder:
        storage = StorageConfig(url=folder)
        with start_run(storage, "bench", "search", {}, {}) as run:
            runs = TrialRuns(storage, "bench", run, is_resumed=False)
            started = time.process_time()
            for count in range(1, len(trials) + 1):
                runs.log(state(trials[:count]))
            return round(time.process_time() - started, 3)


if __name__ == "__main__":
    main()
