"""What a trial costs beyond its own steps, here and with the stock pattern: a Tuner around a TorchTrainer.

Marks: 2 s beyond its steps and validation for a further trial on a warm gang (MiniLM, two workers), and five times the
trials an hour of the stock pattern, whose trials train nothing at all here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

from rich.console import Console

from heliostat.infra.storage.store import open_store
from heliostat.pipeline import prepare, sessions
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.pipeline.tune import make_plan
from heliostat.spec import Spec, load_spec
from heliostat.tune.driver import Driver
from heliostat.tune.search import search
from heliostat.view.terminal import View
from tests.benchmarks.record import record

TRIALS, STOCK_TRIALS = 8, 3
MARK_SECONDS, MARK_TIMES = 2.0, 5.0


def main() -> None:
    """Measures ours, the stock pattern, and ours again."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec("sentiment", settings(folder))
        with sessions.session(spec):
            first = ours(spec, "first")
            stock = stock_seconds(folder)
            second = ours(spec, "second")
    each = statistics.median([*first, *second])
    record(
        "search",
        {
            "trials": TRIALS,
            "overhead_seconds_a_trial": {"first": first, "second": second, "median": each},
            "stock_seconds_a_trial": stock,
            "trials_an_hour_times_stock": round(stock / (each + statistics.median(SEEN)), 1),
            "holds": each <= MARK_SECONDS,
        },
    )


def settings(folder: str) -> list[str]:
    """A search of trials of one step, one after the other, in full."""
    space = "{learning_rate: {loguniform: [1e-5, 1e-3]}}"
    return [
        f"storage.url={folder}/storage", "data.limit=320", "data.max_length=32", "train.max_steps=1", "tune.grace=1.0",
        "train.workers=2", "train.precision=bf16", f"tune.space={space}", f"tune.trials={TRIALS}",
        "tune.scheduler=none", "tune.search=random", "tune.lag=0",
    ]  # fmt: skip


SEEN: list[float] = []
"""Seconds of steps and validations of all trials."""


def ours(spec: Spec, name: str) -> list[float]:
    """Seconds of each further trial beyond its step and its validation."""
    prepared = prepare.run(spec, View(Console(quiet=True)))
    ended: dict[int, float] = {}

    def on_change(driver: Driver) -> None:
        for number in driver.decisions.results:
            ended.setdefault(number, time.perf_counter())

    found = search(
        make_plan(spec, prepared, TrialJobs(spec, name, prepared), name), open_store(spec.storage), on_change
    )
    own = [sum(score.seconds for score in trial.scores) for trial in found.trials]
    SEEN.extend(own[1:])
    return [round(ended[one] - ended[one - 1] - own[one], 2) for one in range(1, TRIALS)]


def stock_seconds(folder: str) -> float:
    """Seconds of a trial of a Tuner whose trials each run a TorchTrainer of two workers that do nothing."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    def trial(config: dict[str, Any]) -> None:
        trainer = TorchTrainer(
            lambda: None,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(storage_path=f"{folder}/stock", name=f"train-{config['learning_rate']:.8f}"),
        )
        trainer.fit()

    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.1}),
        param_space={"learning_rate": tune.loguniform(1e-5, 1e-3)},
        tune_config=tune.TuneConfig(num_samples=STOCK_TRIALS, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=f"{folder}/stock", name="stock", verbose=0),
    )
    started = time.perf_counter()
    tuner.fit()
    return round((time.perf_counter() - started) / STOCK_TRIALS, 2)


if __name__ == "__main__":
    main()
