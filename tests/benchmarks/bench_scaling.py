"""Weak scaling: samples/s of two workers with a thread each over twice those of one, on the same share of the batch.

The `sentiment` recipe's own settings: MiniLM on IMDb reviews, bfloat16, ZeRO stage 1, 16 reviews of up to 256 tokens a
worker and step. Mark: 0.9. Two runs of one worker at the same time tell what the machine itself leaves: on average,
and where each step waits for the slower of the two, as it must in one run.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.benchmarks.bench_training import write_reviews
from tests.benchmarks.processes import measured, say
from tests.benchmarks.record import record
from tests.benchmarks.training_loop import reviews, steps_of

MODULE = "tests.benchmarks.bench_scaling"
SHARE = 16
TOKENS = 256
STEPS = 15
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MARK = 0.9


def worker(file: str, workers: int) -> None:
    """What each rank does: the real loop over the reviews in `file`; rank 0 tells the seconds of each step."""
    from torch import distributed

    values = {"global_batch_size": SHARE * workers, "learning_rate": 2e-4, "epochs": 1, "dropout": 0.0, "zero_stage": 1}
    done = steps_of(reviews(file), values, STEPS)
    if distributed.get_rank() == 0:
        say([[stats.seconds, stats.communication_seconds] for stats in done])


def run(file: Path, workers: int) -> np.ndarray:
    """So many workers of one run: float64 [steps, 2], the seconds of each step and those of its communication."""
    return np.array(measured(MODULE, [str(file), str(workers)], workers))


def apart(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two runs of one worker at the same time, which share the machine and nothing else."""
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(run, [file, file], [1, 1])
    return first, second


def main() -> None:
    """One worker, two that know nothing of each other, and two of one run, in turns."""
    if sys.argv[1:]:
        worker(sys.argv[1], int(sys.argv[2]))
        return
    seconds: dict[str, list[float]] = {name: [] for name in ("alone", "apart", "slower_of_two_apart", "together")}
    communication = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reviews.arrow"
        write_reviews(file, TOKENS)
        for _ in range(ROUNDS):
            seconds["alone"].append(run(file, 1)[:, 0].mean())
            first, second = (one[:, 0] for one in apart(file))
            seconds["apart"].append((first.mean() + second.mean()) / 2)
            seconds["slower_of_two_apart"].append(np.maximum(first, second).mean())
            together, waited = run(file, 2).mean(axis=0)
            seconds["together"].append(together)
            communication.append(waited)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    ratios = {kind: round(medians["alone"] / found, 3) for kind, found in medians.items()}
    rounded = {kind: [round(one, 3) for one in found] for kind, found in seconds.items()}
    summary = {
        "mark": MARK,
        "ratio": ratios["together"],
        "ratio_of_two_runs_apart": ratios["apart"],
        "ratio_if_only_waiting_for_each_other": ratios["slower_of_two_apart"],
        "seconds_of_a_step": rounded,
        "communication_seconds_of_a_step": [round(one, 3) for one in communication],
    }
    record("scaling", summary)


if __name__ == "__main__":
    main()
