"""Weak scaling: samples/s of two workers with a thread each over twice those of one, on the same share of the batch.

MiniLM on IMDb reviews, bfloat16, ZeRO stage 2, 16 reviews of 128 tokens a worker and step. Mark: 0.9. Two runs of one
worker at the same time tell what the machine itself leaves.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.bench_training import write_reviews
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record
from tests.benchmarks.training_loop import reviews, steps_of

MODULE = "tests.benchmarks.bench_scaling"
SHARE = 16
TOKENS = 128
STEPS = 23
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MARK = 0.9


def worker(file: str, workers: int) -> None:
    """What each rank does: the real loop over the reviews in `file`; rank 0 tells samples/s and seconds of a step."""
    from torch import distributed

    values = {"global_batch_size": SHARE * workers, "learning_rate": 2e-4, "epochs": 1, "dropout": 0.0, "zero_stage": 2}
    done = steps_of(reviews(file), values, STEPS)
    if distributed.get_rank() == 0:
        step, communication = (
            statistics.fmean(getattr(stats, name) for stats in done) for name in ("seconds", "communication_seconds")
        )
        say({"samples_per_second": SHARE * workers / step, "seconds": step, "communication_seconds": communication})


def run(file: Path, workers: int) -> dict[str, float]:
    """So many workers of one run."""
    found: dict[str, float] = measured(MODULE, [str(file), str(workers)], workers)
    return found


def apart(file: Path) -> dict[str, float]:
    """Two runs of one worker at the same time, which share the machine and nothing else: their sum."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(run, [file, file], [1, 1]))
    return {name: sum(one[name] for one in found) for name in found[0]}


def main() -> None:
    """One worker, two that know nothing of each other, and two of one run, in turns."""
    if sys.argv[1:]:
        worker(sys.argv[1], int(sys.argv[2]))
        return
    found: dict[str, list[dict[str, float]]] = {"alone": [], "apart": [], "together": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reviews.arrow"
        write_reviews(file, TOKENS)
        for _ in range(ROUNDS):
            found["alone"].append(run(file, 1))
            found["apart"].append(apart(file))
            found["together"].append(run(file, 2))
    rates = {kind: statistics.median(one["samples_per_second"] for one in found[kind]) for kind in found}
    summary = {
        "mark": MARK,
        "ratio": round(rates["together"] / (2 * rates["alone"]), 3),
        "ratio_of_two_runs_apart": round(rates["apart"] / (2 * rates["alone"]), 3),
        "samples_per_second": {kind: round(rate, 2) for kind, rate in rates.items()},
        "seconds": found["together"],
    }
    record("scaling", summary)


if __name__ == "__main__":
    main()
