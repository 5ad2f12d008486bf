"""The largest micro-batch that fits: found by trial when a run starts, made smaller where memory runs out later.

The global batch stays: fewer records in a pass make more passes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from heliostat.infra.errors import TrainingError
from heliostat.train.engine import set_learning_rate
from heliostat.train.loop import Run, accumulate

USABLE = 0.9
"""Share of a device's memory that passes may fill: blocks do not fit together without gaps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for a tensor: of the GPU, or of the process."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def with_room(make_run: Callable[[int | None], Run], limit: int | None) -> Run:
    """A run with no more records in a pass than its GPU has memory for; on CPUs as `make_run(limit)` makes it.

    One that proves too large is gone before another is made. Raises TrainingError where one record is too much.
    """
    run = make_run(limit)
    if run.world.device != "cuda":
        return run
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    try:
        room = fitting(run, total, gpu_peak_bytes)
    except torch.OutOfMemoryError as error:
        raise no_room(run) from error
    if room >= run.engine.train_micro_batch_size_per_gpu():
        return run
    run.engine.destroy()
    del run
    gc.collect()
    return make_run(room)


@contextmanager
def report_out_of_memory(run: Run, channel: Any) -> Iterator[None]:
    """Tells the driver when memory runs out, so that the run starts again with half as many records in a pass.

    Raises TrainingError where one record is too much.
    """
    import ray

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = run.engine.train_micro_batch_size_per_gpu()
        if size == 1:
            raise no_room(run) from error
        ray.get(channel.shrink.remote(size, run.world.rank))
        raise


def no_room(run: Run) -> TrainingError:
    """What to say where not even one record fits."""
    return TrainingError(
        f"worker {run.world.rank}: out of memory with one record in a pass; lower data.max_length, set "
        "train.activation_checkpointing, or share more out (train.zero_stage, train.workers): heliostat plan"
    )


def fitting(run: Run, total_bytes: int, peak_bytes: Callable[[], int]) -> int:
    """Records that a pass may hold, the same on every rank and at least 1, for a device of `total_bytes`.

    Measured on the longest records, one and two in a pass: each takes as much as the second did. `peak_bytes` tells
    the most that was held since it was last asked. Raises what the device does where not even one fits.
    """
    peak_bytes()
    probe(run, 1)
    one = peak_bytes()
    probe(run, 2)
    each = max(1, peak_bytes() - one)
    sizes = run.world.gather(np.array(1 + max(0, int(USABLE * total_bytes - one) // each)))
    return int(min(sizes))


def probe(run: Run, size: int) -> None:
    """One optimizer step that changes nothing, over passes of the `size` longest records."""
    longest = np.argsort(-run.rows.lengths, kind="stable")[:size]
    devices = [torch.cuda.current_device()] if run.world.device == "cuda" else []
    with torch.random.fork_rng(devices), _uncounted(run.engine):
        set_learning_rate(run.engine, 0.0)
        for _ in range(run.engine.gradient_accumulation_steps()):
            accumulate(run, longest, 0.0)
    run.clocks.data.take()
    run.clocks.communication.take()


def gpu_peak_bytes() -> int:
    """The most that this process has held of its GPU since this was last asked."""
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


@contextmanager
def _uncounted(engine: Any) -> Iterator[None]:
    """Sets the counts of steps back to what they were, in the engine and in the optimizer below its sharding."""
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
