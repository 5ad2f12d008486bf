"""Finds the largest micro-batch that fits: measured when a run starts, halved if memory runs out later.

The global batch size stays the same: smaller micro-batches mean more gradient accumulation.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from heliostat.infra.errors import RecordTooLargeError
from heliostat.train.engine import release, set_learning_rate
from heliostat.train.loop import Run, accumulate

USABLE = 0.9
"""Share of a device's memory that micro-batches may use; the rest is left for fragmentation."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a tensor could not be allocated, in GPU memory or in the process's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def fit_micro_batch(make_run: Callable[[int | None], Run], limit: int | None) -> Run:
    """Builds a run whose micro-batches fit in GPU memory; on CPUs, returns `make_run(limit)`.

    A run that is too large is freed before a smaller one is built. Raises TrainingError if not even one record fits.
    """
    run = make_run(limit)
    if run.world.device != "cuda":
        return run
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    try:
        room = fitting(run, total, gpu_peak_bytes)
    except torch.OutOfMemoryError as error:
        raise out_of_memory_error(run) from error
    if room >= run.engine.train_micro_batch_size_per_gpu():
        return run
    release(run.engine)
    del run
    gc.collect()
    return make_run(room)


class PassTooLargeError(RuntimeError):
    """A pass of `size` records ran out of memory on `rank`. No error for users: half as many may fit."""

    def __init__(self, size: int, rank: int) -> None:
        super().__init__(size, rank)  # what it is pickled by, on its way to the driver
        self.size, self.rank = size, rank

    def __str__(self) -> str:
        return f"worker {self.rank}: out of memory with {self.size} records in a pass"


@contextmanager
def sizing_out_of_memory(run: Run) -> Iterator[None]:
    """Raises PassTooLargeError where the block runs out of memory.

    RecordTooLargeError if a pass was a single record.
    The other ranks learn nothing of it and wait in a collective operation for this one: the driver has to end them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = run.engine.train_micro_batch_size_per_gpu()
        if size == 1:
            raise out_of_memory_error(run) from error
        raise PassTooLargeError(size, run.world.rank) from error


@contextmanager
def report_out_of_memory(run: Run, channel: Any) -> Iterator[None]:
    """Reports running out of memory to the driver, so that the run restarts with half the micro-batch size.

    Raises TrainingError if the micro-batch was a single record.
    """
    import ray

    try:
        with sizing_out_of_memory(run):
            yield
    except PassTooLargeError as error:
        ray.get(channel.shrink.remote(error.size, error.rank))
        raise


def out_of_memory_error(run: Run) -> RecordTooLargeError:
    """The error for a run of which not even one record fits."""
    return RecordTooLargeError(
        f"worker {run.world.rank}: out of memory with one record in a pass; lower data.max_length, set "
        "train.activation_checkpointing, or share more out (train.zero_stage, train.workers): heliostat plan"
    )


def fitting(run: Run, total_bytes: int, peak_bytes: Callable[[], int]) -> int:
    """Records that a micro-batch may hold on a device of `total_bytes`; the same on every rank, at least 1.

    Measured with the longest records, one and then two per micro-batch: each further record is assumed to need what the
    second one did. `peak_bytes` returns the peak since its last call. Raises the device's error if one does not fit.
    """
    peak_bytes()
    probe(run, 1)
    one = peak_bytes()
    probe(run, 2)
    each = max(1, peak_bytes() - one)
    sizes = run.world.gather(np.array(1 + max(0, int(USABLE * total_bytes - one) // each)))
    return int(min(sizes))


def probe(run: Run, size: int) -> None:
    """Runs one optimizer step at learning rate 0, over micro-batches of the `size` longest records."""
    longest = np.argsort(-run.rows.lengths, kind="stable")[:size]
    with _restore_step_counters(run.engine):
        set_learning_rate(run.engine, 0.0)
        for _ in range(run.engine.gradient_accumulation_steps()):
            accumulate(run, longest, 0.0)
    run.clocks.data.take()
    run.clocks.communication.take()


def gpu_peak_bytes() -> int:
    """Peak GPU memory of this process since the last call, in bytes."""
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


@contextmanager
def _restore_step_counters(engine: Any) -> Iterator[None]:
    """Restores the step counters after the block, in the engine and in the optimizer that it wraps."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    before = {parameter: state["step"].clone() for parameter, state in optimizer.state.items()}
    counts = {name: getattr(engine, name) for name in ("global_steps", "global_samples", "micro_steps")}
    yield
    vars(engine).update(counts)
    for parameter, state in list(optimizer.state.items()):
        if parameter in before:
            state["step"].copy_(before[parameter])
        else:
            del optimizer.state[parameter]
