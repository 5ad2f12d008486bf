"""Searches whose driver is killed at a random moment, and what a resume makes of them.

    python -m tests.benchmarks.bench_search_kills 20

Marks: all finished trials kept, at most 5 % of the steps trained twice, the table equal to that of a search left alone.
Steps since a validation that was still to come are lost with the driver and are not counted: nobody knows of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.record import record

SETTINGS = ("train.workers=1", "tune.trials=8", "tune.epochs=60", "tune.lag=1")
MARK = 0.05


def main() -> None:
    """Kills as many searches as the command line says."""
    kills, rng = int((sys.argv[1:] or ["20"])[0]), random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder) / "storage"
        started = time.monotonic()
        command(storage, "alone").wait()
        whole = rows(storage, "alone")
        length = time.monotonic() - started
        found = [killed(storage, f"killed-{number}", rng.uniform(0.2, 0.95) * length, whole) for number in range(kills)]
    steps = sum(row["steps"] for row in whole)
    twice = sum(one["repeated_steps"] for one in found) / (steps * kills)
    record(
        "search_kills",
        {
            "searches": found,
            "steps_of_a_search": steps,
            "share_of_steps_trained_twice": round(twice, 4),
            "equal": sum(one["is_equal"] for one in found),
            "holds": twice <= MARK and all(one["is_equal"] and one["keeps_all"] for one in found),
        },
    )


def command(storage: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """A search in a process of its own."""
    words = ["tune", "tabular", "--search-only", "--search", name, *more, *SETTINGS, f"storage.url={storage}"]
    return subprocess.Popen(
        [sys.executable, "-m", "heliostat", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def rows(storage: Path, name: str) -> list[dict[str, Any]]:
    """The trials of a search that has ended."""
    found: list[dict[str, Any]] = json.loads((storage / "runs/tabular" / name / "trials.json").read_text())
    return found


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A trial, times and repeated steps apart."""
    return {key: value for key, value in row.items() if key not in ("seconds", "repeated_steps")}


def killed(storage: Path, name: str, after_seconds: float, whole: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of a search whose driver was killed after so many seconds, and which was then resumed."""
    with command(storage, name) as driver:
        time.sleep(after_seconds)
        driver.send_signal(signal.SIGKILL)
    finished = finished_trials(storage, name)
    with command(storage, name, "--resume") as driver:
        driver.wait()
    again = rows(storage, name)
    kept = [row["trial"] for row in again if row["state"] == "finished"]
    return {
        "killed_after_seconds": round(after_seconds, 1),
        "finished_then": len(finished),
        "keeps_all": set(finished) <= set(kept),
        "repeated_steps": sum(row["repeated_steps"] for row in again),
        "is_equal": [told(row) for row in again] == [told(row) for row in whole],
    }


def finished_trials(storage: Path, name: str) -> list[int]:
    """Trials that the journal of a search has results of, to their ends."""
    words = [sys.executable, "-m", "heliostat", "trials", "list", f"tabular/{name}", "--json"]
    said = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "HELIOSTAT_STORAGE": str(storage)}, check=False
    )
    found = json.loads(said.stdout) if said.returncode == 0 else []  # killed before it had begun
    return [row["trial"] for row in found if row["state"] == "finished"]


if __name__ == "__main__":
    main()
