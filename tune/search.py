"""A search over learning rate, batch size and other `train` keys: Ray Tune schedules trials, gangs run them."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import TrainingError
from heliostat.infra.metrics.export import Exporter
from heliostat.train import tasks
from heliostat.train.job import Job
from heliostat.train.launch import innermost, resolve_use_gpu
from heliostat.tune.config import TuneConfig
from heliostat.tune.ray_schedulers import build_scheduler
from heliostat.tune.searchers import build_searcher
from heliostat.tune.space import build_space, check_space


@dataclass(frozen=True)
class Trial:
    """The result of one configuration."""

    id: str
    values: dict[str, Any]
    """The values that were tried, by `train` key."""
    metrics: dict[str, float]
    """Metrics of its last validation."""
    progress: int
    """Percent of the longest trial that was run."""
    seconds: float
    outcome: str
    """`finished`, `stopped` by the scheduler, or `failed`."""
    error: str | None = None


@dataclass(frozen=True)
class Search:
    """A finished search: its trials, best first; those that failed or have no finite metric last."""

    trials: list[Trial]
    metric: str

    @property
    def best(self) -> Trial:
        """The trial with the best metric; raises TrainingError if none has finished with a finite one."""
        if is_usable(self.trials[0], self.metric):
            return self.trials[0]
        errors = [trial.error for trial in self.trials if trial.error]
        if len(errors) == len(self.trials):
            raise TrainingError(f"all {len(errors)} trials failed; the first: {errors[0]}")
        failed = f"; {len(errors)} failed, the first: {errors[0]}" if errors else ""
        raise TrainingError(f"none of {len(self.trials)} trials has a finite {self.metric}{failed}")


def is_usable(trial: Trial, metric: str) -> bool:
    """Whether a trial can be the best: it did not fail, and its metric is a number."""
    return trial.outcome != "failed" and math.isfinite(trial.metrics.get(metric, math.nan))


def best_first(trials: Iterable[Trial], metric: str, mode: str) -> list[Trial]:
    """The trials by `metric` (`mode` is `min` or `max`); those that cannot be the best come last, in their order."""
    sign = 1 if mode == "min" else -1
    return sorted(trials, key=lambda one: (0, sign * one.metrics[metric]) if is_usable(one, metric) else (1, 0.0))


def search(job: Job, config: TuneConfig, on_trial: Callable[[Mapping[str, Any]], None]) -> Search:
    """Runs the search on the Ray cluster that this process has joined.

    `on_trial` is called with a mapping after each validation and at the end of each trial: `id`, `values`, `result`
    (metrics and `progress` in percent) and `over`. Raises ConfigError if the space contains a value that `train`
    rejects.
    """
    from heliostat.tune.progress import Progress

    check_space(job.train, config)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints a banner whatever `verbose` says
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C must end the command, not only the search
    task = tasks.get(job.task)
    with tempfile.TemporaryDirectory(prefix="heliostat-tune-") as scratch, closing(Exporter()) as exporter:
        callbacks = (Progress(on_trial), search_metrics(job, config, exporter))
        results = build_tuner(job, config, resolve_use_gpu(job.train), scratch, callbacks).fit()
        trials = [as_trial(result, config) for result in results]
    return Search(best_first(trials, task.metric, task.mode), task.metric)


def search_metrics(job: Job, config: TuneConfig, exporter: Exporter) -> Any:
    """The callback that exports how the search gets on."""
    from heliostat.tune.telemetry import SearchMetrics

    task, labels = tasks.get(job.task), {"model": job.name, "search": job.run_id}
    return SearchMetrics(exporter, labels, config.trials, config.concurrent, task.metric, task.mode)


def build_tuner(job: Job, config: TuneConfig, use_gpu: bool, scratch: str, callbacks: Iterable[Any]) -> Any:
    """Builds Ray Tune's Tuner of gangs; starts nothing."""
    from ray import tune

    from heliostat.tune.gang import Gang

    task = tasks.get(job.task)
    parts = {
        "job": job.model_dump(mode="json"),
        "tune_config": config.model_dump(mode="json"),
        "use_gpu": use_gpu,
    }
    worker = {"CPU": float(job.train.cpus_per_worker), **({"GPU": 1.0} if use_gpu else {})}
    bundles = tune.PlacementGroupFactory([{}] + [worker] * job.train.workers.min)
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(Gang, **parts), bundles),
        param_space=build_space(config),
        tune_config=tune.TuneConfig(
            metric=task.metric,
            mode=task.mode,
            num_samples=config.trials,
            max_concurrent_trials=config.concurrent,
            scheduler=build_scheduler(config),
            search_alg=build_searcher(config),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=job.run_id,
            storage_path=scratch,
            verbose=0,
            callbacks=list(callbacks),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def as_trial(result: Any, config: TuneConfig) -> Trial:
    """Converts Ray Tune's result to a Trial."""
    metrics = result.metrics or {}
    progress = int(metrics.get("progress", 0))
    outcome = "failed" if result.error else "finished" if progress >= 100 else "stopped"
    numbers = {key: value for key, value in metrics.items() if isinstance(value, float) and "/" not in key}
    return Trial(
        id=str(metrics.get("trial_id", "?")),
        values={key: result.config[key] for key in config.space} if result.config else {},
        metrics={
            key: value
            for key, value in numbers.items()
            if key not in ("time_this_iter_s", "time_total_s", "time_since_restore")
        },
        progress=progress,
        seconds=float(metrics.get("time_total_s", 0.0)),
        outcome=outcome,
        error=innermost(result.error) if result.error else None,
    )
