"""A search over learning rate, batch size and other `train` keys: Ray Tune schedules trials, gangs run them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import TrainingError
from heliostat.train import tasks
from heliostat.train.job import Job
from heliostat.train.launch import innermost, resolve_use_gpu
from heliostat.tune.config import TuneConfig
from heliostat.tune.schedulers import build_scheduler
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
    """A finished search: its trials, best first."""

    trials: list[Trial]
    metric: str

    @property
    def best(self) -> Trial:
        """The trial with the best metric; raises TrainingError if all failed."""
        if self.trials[0].outcome == "failed":
            raise TrainingError(f"all {len(self.trials)} trials failed; the first: {self.trials[0].error}")
        return self.trials[0]


def search(job: Job, config: TuneConfig, on_trial: Callable[[Mapping[str, Any]], None]) -> Search:
    """Runs the search on the Ray cluster that this process has joined.

    `on_trial` is called with a mapping after each validation and at the end of each trial: `id`, `values`, `result`
    (metrics and `progress` in percent) and `over`. Raises ConfigError if the space contains a value that `train`
    rejects.
    """
    check_space(job.train, config)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints a banner whatever `verbose` says
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C must end the command, not only the search
    task = tasks.get(job.task)
    with tempfile.TemporaryDirectory(prefix="heliostat-tune-") as scratch:
        results = build_tuner(job, config, resolve_use_gpu(job.train), scratch, on_trial).fit()
        trials = [as_trial(result, config) for result in results]
    sign = 1 if task.mode == "min" else -1
    missing = float("inf")
    trials.sort(key=lambda trial: sign * trial.metrics[task.metric] if task.metric in trial.metrics else missing)
    return Search(trials, task.metric)


def build_tuner(
    job: Job, config: TuneConfig, use_gpu: bool, scratch: str, on_trial: Callable[[Mapping[str, Any]], None]
) -> Any:
    """Builds Ray Tune's Tuner of gangs; starts nothing."""
    from ray import tune

    from heliostat.tune.gang import Gang
    from heliostat.tune.progress import Progress

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
            callbacks=[Progress(on_trial)],
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
