"""Weak scaling: samples/s of two workers with a thread each over twice those of one, on the same share of the batch.

MiniLM on IMDb reviews, bfloat16, ZeRO stage 2, 16 reviews of 128 tokens a worker and step. Mark: 0.9.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_training import write_reviews
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record
from tests.benchmarks.training_loop import ours, reviews

MODULE = "tests.benchmarks.bench_scaling"
SHARE = 16
TOKENS = 128
STEPS = 23
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MARK = 0.9


def worker(file: str, workers: int) -> None:
    """What each rank does: the real loop over the reviews in `file`."""
    from torch import distributed

    values = {"global_batch_size": SHARE * workers, "learning_rate": 2e-4, "epochs": 1, "dropout": 0.0, "zero_stage": 2}
    rate = ours(reviews(file), values, STEPS)
    if distributed.get_rank() == 0:
        say(rate)


def main() -> None:
    """One worker and two, in turns."""
    if sys.argv[1:]:
        worker(sys.argv[1], int(sys.argv[2]))
        return
    found: dict[int, list[Any]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reviews.arrow"
        write_reviews(file, TOKENS)
        for _ in range(ROUNDS):
            for workers, rates in found.items():
                rates.append(measured(MODULE, [str(file), str(workers)], workers))
    medians = {workers: round(statistics.median(rates), 2) for workers, rates in found.items()}
    record("scaling", {"mark": MARK, "ratio": round(medians[2] / (2 * medians[1]), 3), "samples_per_second": medians})


if __name__ == "__main__":
    main()
