"""Groups of workers that stay alive between trials.

Starting workers, importing frameworks and loading data takes far longer than a short trial. A gang does it once:
Ray Tune reuses its trainable for the next trial (`reuse_actors`), and with it the workers, which live in the trial's
placement group and end with it.
"""

from __future__ import annotations

import gc
import math
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from heliostat.infra.log_fields import identify
from heliostat.infra.memory import freeze_heap
from heliostat.train.config import TrainConfig
from heliostat.train.job import Job
from heliostat.train.telemetry.stats import Report
from heliostat.tune.config import TuneConfig
from heliostat.tune.ray_space import trial_config


class Member:
    """One worker of a gang: a process in the process group, with the data loaded.

    What trains is imported in its methods: the Gang, which only names this class, starts its workers 3 s earlier.
    """

    def __init__(self, job: dict[str, Any], tune_config: dict[str, Any]) -> None:
        from heliostat.train.parallel.distributed import configure_process

        self._job = Job.model_validate(job)
        self._tune = TuneConfig.model_validate(tune_config)
        self._engine: Any = None
        self._reports: Iterator[Report] = iter(())
        configure_process(self._job.train.cpus_per_worker)

    def address(self) -> tuple[str, int]:
        """A host and a free port of this node, for the process group."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def join(self, rank: int, host: str, port: int) -> None:
        """Joins the process group and loads the data."""
        import torch

        from heliostat.train.build import load_run_inputs
        from heliostat.train.parallel.distributed import join

        identify(run=self._job.run_id, model=self._job.name)
        size = self._job.train.workers.min
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        self._world = join("cuda" if torch.cuda.is_available() else "cpu")
        self._inputs = load_run_inputs(self._job)
        freeze_heap()  # of a trial's objects, none are there yet

    def begin(self, values: dict[str, Any]) -> None:
        """Starts a trial from the base model, with `values` merged over the `train` section."""
        from heliostat.train.build import build_run
        from heliostat.train.loop import fit
        from heliostat.train.micro_batch import fit_micro_batch

        self.end()
        trial = trial_config(self._job.train, self._tune, values)
        train = with_validations(trial, self._tune.grace, self._inputs.rows("train"))
        run = fit_micro_batch(lambda limit: build_run(self._inputs, train, self._world, limit), None)
        self._engine, self._reports = run.engine, fit(run)

    def advance(self) -> dict[str, Any]:
        """Trains to the next validation; returns its metrics, and `progress` in percent of the whole trial."""
        report = next(self._reports)
        return {**report.metrics, "progress": round(100 * report.step / report.steps), "step": report.step}

    def end(self) -> None:
        """Drops the current trial, if any, and frees its memory."""
        self._reports = iter(())
        if self._engine is not None:
            self._engine.destroy()
            self._engine = None
            gc.collect()


def with_validations(train: TrainConfig, share: float, rows: Any) -> TrainConfig:
    """`train` with a validation after each `share` of its steps."""
    from heliostat.train.data.batches import BatchPlan
    from heliostat.train.loop import total_steps

    plan = BatchPlan(rows.lengths, rows.targets, train.global_batch_size, train.seed)
    steps = total_steps(train, plan.steps_per_epoch)
    return train.model_copy(update={"validate_every": math.ceil(share * steps)})


class Gang(tune.Trainable):
    """Ray Tune's trainable for a gang: runs one trial at a time and keeps the workers between trials."""

    def setup(self, config: dict[str, Any], job: dict[str, Any], tune_config: dict[str, Any], use_gpu: bool) -> None:
        """Starts the workers in the trial's placement group and begins the first trial."""
        train = Job.model_validate(job).train
        member = ray.remote(num_cpus=train.cpus_per_worker, num_gpus=1 if use_gpu else 0)(Member)
        self._members = [member.remote(job, tune_config) for _ in range(train.workers.min)]
        host, port = ray.get(self._members[0].address.remote())
        ray.get([actor.join.remote(rank, host, port) for rank, actor in enumerate(self._members)])
        self._all("begin", config)

    def step(self) -> dict[str, Any]:
        """Trains to the next validation."""
        result = self._all("advance")[0]
        return {**result, "done": result["progress"] >= 100}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next trial on the same workers."""
        self._all("begin", new_config)
        return True

    def cleanup(self) -> None:
        """Ends the workers."""
        for actor in getattr(self, "_members", ()):
            ray.kill(actor)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        return ray.get([getattr(actor, method).remote(*arguments) for actor in self._members])
