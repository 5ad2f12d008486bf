"""What a trial costs beyond its own steps, here and with the stock pattern: a Tuner around a TorchTrainer.

Marks: 2 s beyond its steps and validation for a further trial on a warm gang (MiniLM, two workers), five times the
trials an hour of the stock pattern, whose trials train nothing at all here, and a quarter of the time until eight
configurations all have a first score: one after another, each is started by the stock pattern and trained to its end.
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
STEPS = 8
"""Of a trial of which the first score is waited for; it is validated after each."""
MARK_SECONDS, MARK_TIMES, MARK_FIRST = 2.0, 5.0, 4.0


def main() -> None:
    """Measures ours, the stock pattern, and ours again."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec("sentiment", settings(folder))
        with sessions.session(spec):
            first = ours(spec, "first")
            stock = stock_seconds(folder)
            second = ours(spec, "second")
            until_first, whole = first_scores(load_spec("sentiment", [*settings(folder), *HALVED]))
    one_after_another = TRIALS * stock + (TRIALS - 1) * whole + whole / STEPS
    times_stock = stock / (statistics.median([*first, *second]) + statistics.median(SEEN))
    times_first = one_after_another / until_first
    each = statistics.median([*first, *second])
    record(
        "search",
        {
            "trials": TRIALS,
            "overhead_seconds_a_trial": {"first": first, "second": second, "median": each},
            "stock_seconds_a_trial": stock,
            "trials_an_hour_times_stock": round(times_stock, 1),
            "seconds_until_all_have_a_first_score": round(until_first, 1),
            "seconds_of_a_whole_trial": round(whole, 1),
            "first_scores_times_one_after_another": round(times_first, 1),
            "holds": each <= MARK_SECONDS and times_stock >= MARK_TIMES and times_first >= MARK_FIRST,
        },
    )


def settings(folder: str) -> list[str]:
    """A search of trials of one step, one after the other, in full."""
    space = "{learning_rate: {loguniform: [1e-5, 1e-3]}}"
    return [
        f"storage.url={folder}/storage", "data.limit=320", "data.max_length=32", "train.max_steps=1", "tune.grace=1.0",
        "train.workers=2", f"tune.space={space}", f"tune.trials={TRIALS}", "tune.scheduler=none", "tune.search=random",
        "tune.lag=0",
    ]  # fmt: skip


HALVED = (f"train.max_steps={STEPS}", f"tune.grace={1 / STEPS}", "tune.scheduler=asha")

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


def first_scores(spec: Spec) -> tuple[float, float]:
    """Seconds until all trials have a score, starting workers included, and those of the steps of a whole trial."""
    prepared, name = prepare.run(spec, View(Console(quiet=True))), "first-scores"
    begun, last = time.perf_counter(), 0.0

    def on_change(driver: Driver) -> None:
        nonlocal last
        if not last and sum(bool(trial.scores) for trial in driver.trials()) == TRIALS:
            last = time.perf_counter()

    found = search(
        make_plan(spec, prepared, TrialJobs(spec, name, prepared), name), open_store(spec.storage), on_change
    )
    return last - begun, sum(score.seconds for score in found.best.scores)


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
