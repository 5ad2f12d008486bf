"""Runs a training job on Ray Train: builds the trainer, runs it, returns the result."""

from __future__ import annotations

import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from heliostat.cluster.session.interrupts import first_signal
from heliostat.infra import log
from heliostat.infra.bf16 import has_bf16
from heliostat.infra.errors import StoppedError, TrainingError
from heliostat.infra.log_fields import about
from heliostat.infra.tracing.span import traceparent
from heliostat.train.config import TrainConfig
from heliostat.train.job import Job
from heliostat.train.parallel.config import check_device
from heliostat.train.telemetry.heartbeat import Beat, RankWatch
from heliostat.train.telemetry.notices import Notice

POLL_SECONDS = 0.5
ANSWER_SECONDS = 5.0
"""How long the channel has to answer; it may have died with its node."""
RESIZE_SECONDS = 60.0
"""Seconds between attempts to scale up an elastic run: each resize stores a checkpoint and starts all workers anew."""
FULL_NODE = re.compile(r"Memory on the node .* was (\S+ used / \S+ limit)")
"""Ray's message about a node that has run out of memory."""
_log = log.get(__name__)


class DriverChannel:
    """Queue of events from the workers to the driver; runs as a Ray actor that needs no CPU."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._error: str | None = None
        self._stopping = False
        self._is_saved = True
        self._micro_batch_limit: int | None = None
        self._restart_reason = ""
        self._watch = RankWatch()

    def stop(self) -> None:
        """Asks the workers to stop at a checkpoint."""
        self._stopping = True

    def ask_to_save(self) -> None:
        """Asks the workers to store a checkpoint and go on, before their number changes."""
        self._restart_reason = "resize"
        self._is_saved = False

    def saved(self) -> None:
        """Notes that the workers have done so."""
        self._is_saved = True

    def is_saved(self) -> bool:
        """Whether no checkpoint is asked for."""
        return self._is_saved

    def notice(self) -> Notice:
        """What the workers should do now."""
        return "stop" if self._stopping else "" if self._is_saved else "save"

    def post(self, event: dict[str, Any]) -> None:
        """Adds an event: a mapping with its `kind`."""
        if event["kind"] == "error":
            self._error = self._error or event["message"]
        self._events.append(event)

    def shrink(self, size: int, rank: int) -> None:
        """Notes that micro-batches of `size` ran out of memory on `rank`; the next attempt uses half of that."""
        if size <= (self._micro_batch_limit or size):
            self._micro_batch_limit = size // 2
            self._restart_reason = "out_of_memory"
            self.post({"kind": "memory", "micro_batch_size": size, "rank": rank})

    def micro_batch_limit(self) -> int | None:
        """The largest micro-batch, in records, that out-of-memory errors so far allow; None if there were none."""
        return self._micro_batch_limit

    def begin(self) -> str:
        """Called when workers begin; says why anew (a value of the label `restart_reason`), empty for the first ones.

        Workers that give no other reason have lost one of them.
        """
        reason, self._restart_reason = self._restart_reason, "lost_worker"
        return reason

    def beat(self, beat: Beat) -> None:
        """Notes that a worker lives, and what it does."""
        self._watch.beat(beat, time.monotonic())

    def leave(self, rank: int) -> None:
        """Notes that a worker has done its work."""
        self._watch.leave(rank)

    def take(self) -> list[dict[str, Any]]:
        """Removes and returns all events since the last call; `hang` has lines about workers that hang or go on."""
        events, self._events = self._events, []
        return [*events, *({"kind": "hang", "message": line} for line in self._watch.changes(time.monotonic()))]

    def error(self) -> str | None:
        """The first error that a retry cannot fix; None if there is none."""
        return self._error


def run_worker(config: dict[str, Any]) -> None:
    """The train function. It imports what trains, which the driver and Ray Train's controller do without."""
    from heliostat.train.worker import work

    work(config)


def build_trainer(job: Job, use_gpu: bool, channel: Any, scratch: str) -> Any:
    """Builds the TorchTrainer of a job; starts nothing."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from heliostat.train.resize import ElasticTrainer

    workers = job.train.workers
    return ElasticTrainer(
        run_worker,
        channel=channel,
        train_loop_config={"job": job.model_dump(mode="json"), "channel": channel, "traceparent": traceparent()},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.max if workers.min == workers.max else (workers.min, workers.max),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": job.train.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RunConfig(
            name=job.run_id,
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=job.train.max_failures),
        ),
    )


def resolve_use_gpu(train: TrainConfig) -> bool:
    """Whether each worker gets a GPU: as the spec says; with `auto`, if the cluster has enough of them.

    Raises ConfigError if there are none and `train` needs them.
    """
    import ray

    use_gpu = train.use_gpu
    if use_gpu == "auto":
        use_gpu = ray.cluster_resources().get("GPU", 0) >= train.workers.min
    check_device(train, use_gpu)
    return use_gpu


def one_worker_has_bf16(train: TrainConfig, use_gpu: bool) -> bool:
    """Whether the device that the cluster has for a worker computes bfloat16; waits until there is room for one."""
    import ray

    each = {"num_cpus": train.cpus_per_worker, "num_gpus": 1 if use_gpu else 0}
    found: bool = ray.get(ray.remote(max_calls=1, **each)(_has_bf16_here).remote())
    return found


def _has_bf16_here() -> bool:
    import torch

    return has_bf16("cuda" if torch.cuda.is_available() else "cpu")


def launch(job: Job, on_event: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Runs the job on the Ray cluster that this process has joined and returns its `result` event.

    `on_event` is called in this process for each event (`step`, `report`, `result`), shortly after it happened. Raises
    TrainingError with the first worker's reason if the run failed for good, and StoppedError if Ctrl-C, SIGTERM or
    SIGHUP ended it: the workers save a checkpoint first. A second signal does not wait for it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    received: list[signal.Signals] = []
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kept = {"max_restarts": -1, "max_task_retries": -1}  # Ray may kill it when memory runs out
    channel = ray.remote(num_cpus=0, scheduling_strategy=here, **kept)(
        DriverChannel
    ).remote()  # on this node, so that it lives as long as the driver
    results: list[dict[str, Any]] = []

    def handle(event: dict[str, Any]) -> None:
        if event["kind"] == "result":
            results.append(event)
        on_event(event)

    try:
        with (
            about(run=job.run_id, model=job.name),
            tempfile.TemporaryDirectory(prefix="heliostat-train-") as scratch,
            polling(channel, handle, received),
            first_signal(received.append),
        ):
            build_trainer(job, resolve_use_gpu(job.train), channel, scratch).fit()
        if not results:
            raise TrainingError("the workers ended without a result")
    except Exception as error:
        message = told(channel) or reason(error)
        raise StoppedError(message, received[0]) if received else TrainingError(message) from error
    finally:
        ray.kill(channel)
    return results[-1]


def told(channel: Any) -> str | None:
    """The error that the workers reported; None if there is none, or if the channel is gone."""
    import ray

    try:
        return ray.get(channel.error.remote(), timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        return None


@contextmanager
def polling(
    channel: Any, handle: Callable[[dict[str, Any]], None], received: Sequence[signal.Signals]
) -> Iterator[None]:
    """Passes the channel's events to `handle` in a thread until the block ends.

    Asks the workers to stop once a signal is in `received`.
    """
    import ray

    done = threading.Event()

    def poll() -> None:
        last = said = False
        while not last:
            last = done.wait(POLL_SECONDS)
            if received:
                channel.stop.remote()
            if received and not said:
                said = True
                _log.warning("%s: stopping at a checkpoint; a second signal does not wait for it", received[0].name)
            for event in ray.get(channel.take.remote()):
                if event["kind"] == "hang":
                    _log.warning("%s", event["message"])
                handle(event)

    thread = threading.Thread(target=copy_context().run, args=(poll,), name="events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)


def reason(error: BaseException) -> str:
    """The message of the first worker's error in a failure that Ray reports."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, cause = next(iter(failures.items()))
        return f"worker {rank}: {innermost(cause)}"
    return innermost(error)


def innermost(error: BaseException) -> str:
    """The last non-empty line of the root cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if full := FULL_NODE.search(str(error)):
        return f"a machine ran out of memory ({full[1]}), and Ray ended a process on it; fewer or smaller workers fit"
    return lines[-1] if lines else type(error).__name__
