"""A worker of a gang: a process in a process group that trains one trial after the other, with the data loaded.

What trains is imported in its methods: the driver, which only names this class, starts workers 3 s earlier.
"""

from __future__ import annotations

import gc
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from heliostat.infra.log_fields import identify
from heliostat.infra.memory import freeze_heap
from heliostat.train.config import TrainConfig
from heliostat.train.job import Job
from heliostat.train.telemetry.stats import Report, StepStats
from heliostat.tune.work import Place

TRAINS = {"concurrency_groups": {"watch": 1}}
"""Options of the actor: `pulse` answers while a trial is trained."""


@dataclass(frozen=True)
class Pulse:
    """What a worker has done so far; changes while it works."""

    passes: int
    """Optimizer steps, and passes of validations."""
    step_seconds: float
    """Of the last optimizer step; 0 before the first one."""


class NothingStoring:
    """In place of a checkpoint that is being stored."""

    def wait(self) -> None:
        """Returns at once."""


class Member:
    """One worker of a gang."""

    def __init__(self, cpus: int, gpus: float = 0.0, measures: Sequence[str] = ()) -> None:
        """Of `gpus` below 1 it takes as much of the GPU's memory: others have the rest.

        `measures` are names of `objectives.MEASURED`.
        """
        from heliostat.train.parallel.distributed import configure_process
        from heliostat.tune.measure import Meter
        from heliostat.tune.notices import StopNotices

        self._inputs: dict[str, Any] = {}
        self._run: Any = None
        self._notices = StopNotices()
        self._storing: Any = NothingStoring()
        self._reports: Iterator[Report] = iter(())
        self._pulse = Pulse(0, 0.0)
        self._started = 0.0
        self._gpus = gpus
        self._meter = Meter(measures)
        configure_process(cpus)

    def address(self) -> tuple[str, int]:
        """A host and a free port of this node, for the process group."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def join(self, rank: int, size: int, host: str, port: int) -> None:
        """Joins the process group."""
        import torch

        from heliostat.train.parallel.distributed import join

        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
        self._world = join("cuda" if torch.cuda.is_available() else "cpu")
        if torch.cuda.is_available() and 0 < self._gpus < 1:
            torch.cuda.set_per_process_memory_fraction(self._gpus)

    def begin(self, job: dict[str, Any], share: float, place: Place, limit: int | None) -> dict[str, int]:
        """Starts a trial, or goes on with one, validated after each `share` of its steps.

        Returns the `step` that it is at, and its `micro_batch`: the records of one, at most `limit`.
        """
        from heliostat.train.build import build_run
        from heliostat.train.loop import fit
        from heliostat.train.micro_batch import fit_micro_batch

        self.end()
        described = Job.model_validate(job)
        identify(run=described.run_id, model=described.name)
        inputs = self._load(described)
        steps = steps_of(described.train, inputs.rows("train"))
        train = described.train.model_copy(update={"validate_every": math.ceil(share * steps)})
        built = fit_micro_batch(lambda most: build_run(inputs, train, self._world, most), limit)
        self._run = self._watched(built, described, place, steps)
        self._reports = fit(self._run)
        self._meter.begin()
        self._started = time.perf_counter()
        micro_batch = self._run.engine.train_micro_batch_size_per_gpu()
        return {"step": self._run.checkpoints.find_start(), "micro_batch": micro_batch}

    def advance(self) -> dict[str, Any]:
        """Trains to the next validation: its `step` of `steps`, `metrics` with what is measured, and `seconds`.

        Raises PassTooLargeError if memory runs out.
        """
        from heliostat.train.micro_batch import sizing_out_of_memory

        with sizing_out_of_memory(self._run):
            report = next(self._reports)
            measured = self._meter.measured(self._run)
        now, self._started = time.perf_counter(), self._started
        seconds, self._started = now - self._started, now
        return {
            "step": report.step,
            "steps": report.steps,
            "metrics": {**report.metrics, **measured},
            "seconds": seconds,
        }

    def settle(self) -> None:
        """Waits until the last checkpoints are stored."""
        self._storing.wait()
        if self._run is not None:
            self._run.checkpoints.wait()

    @ray.method(concurrency_group="watch")
    def pulse(self) -> Pulse:
        """What this worker has done so far; answers at once."""
        return self._pulse

    @ray.method(concurrency_group="watch")
    def stop(self) -> None:
        """Makes `advance`, this one or the next, store a checkpoint after its step and raise StoppedError."""
        self._notices.is_asked = True

    def end(self) -> None:
        """Drops the current trial, if any; its last checkpoint is stored while the next one begins."""
        from heliostat.train.engine import release

        self._reports = iter(())
        if self._run is not None:
            self._storing.wait()  # at most two trials' states are kept in memory
            self._storing = self._run.checkpoints.released()
            release(self._run.engine)
            self._run = None
            gc.collect()

    def _load(self, job: Job) -> Any:
        """The base model's files and the prepared data, which trials share."""
        from heliostat.train.build import load_run_inputs

        key = f"{job.data_fingerprint} {job.model.model_dump_json()} {job.data.model_dump_json()}"
        if key not in self._inputs:
            self._inputs[key] = load_run_inputs(job)
            if len(self._inputs) == 1:
                freeze_heap()  # of a trial's objects, none are there yet
        return self._inputs[key]

    def _watched(self, run: Any, job: Job, place: Place, steps: int) -> Any:
        from dataclasses import replace

        from heliostat.infra.storage.store import open_store
        from heliostat.tune.checkpoints import TrialCheckpoints

        points = TrialCheckpoints(open_store(job.storage), place, self._world, run.train, steps, run.task)
        watched = {"on_step": self._stepped, "on_evaluated": self._validated, "notices": self._notices}
        return replace(run, checkpoints=points, **watched)

    def _stepped(self, stats: StepStats) -> None:
        self._pulse = Pulse(self._pulse.passes + 1, stats.seconds)
        self._meter.stepped(stats)

    def _validated(self, _records: int) -> None:
        self._pulse = Pulse(self._pulse.passes + 1, self._pulse.step_seconds)


def steps_of(train: TrainConfig, rows: Any) -> int:
    """Optimizer steps of a whole trial."""
    from heliostat.train.data.batches import BatchPlan
    from heliostat.train.loop import total_steps

    plan = BatchPlan(rows.lengths, rows.targets, train.global_batch_size, train.seed)
    return total_steps(train, plan.steps_per_epoch)
