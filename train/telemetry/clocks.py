"""Measures how long training waits: for data, for other workers, for checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

COLLECTIVES = (
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "gather",
    "inference_all_reduce",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)
"""The collective operations of DeepSpeed's backend."""


class Clock:
    """Adds up the seconds inside `with clock:`; nested blocks count once.

    On a GPU, the time between the events that its stream records at both ends of the block: only communication that
    does not overlap with computation counts.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._mark = _event if device == "cuda" else time.perf_counter
        self._spans: list[tuple[Any, Any]] = []
        self._depth = 0
        self._start: Any = None

    def __enter__(self) -> None:
        if self._depth == 0:
            self._start = self._mark()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._spans.append((self._start, self._mark()))

    @property
    def is_running(self) -> bool:
        """Whether the process is inside the block now."""
        return self._depth > 0

    def take(self) -> float:
        """Seconds since the last call; on a GPU, the operations launched before must have finished."""
        spans, self._spans = self._spans, []
        return sum(_seconds(start, end) for start, end in spans)


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


class Clocks:
    """Clocks for the causes of waiting."""

    def __init__(self, device: str = "cpu") -> None:
        """For a worker on `cpu` or `cuda`."""
        self.data = Clock(device)
        """Collating batches and moving them to the device."""
        self.communication = Clock(device)
        """Collective operations, including waiting for slower workers; see `time_collectives`."""


def time_collectives(clock: Clock) -> None:
    """Measures every collective operation of DeepSpeed in this process with `clock`; replaces an earlier clock."""
    from deepspeed.comm import comm

    backend = comm.cdb
    for name in COLLECTIVES:
        plain = getattr(type(backend), name).__get__(backend)
        setattr(backend, name, partial(_timed, clock, plain))


def _timed(clock: Clock, operation: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with clock:
        handle = operation(*args, **options)
    return _Handle(handle, clock) if hasattr(handle, "wait") else handle


class _Handle:
    """An asynchronous operation whose `wait` is timed."""

    def __init__(self, handle: Any, clock: Clock) -> None:
        self._handle = handle
        self._clock = clock

    def wait(self, *args: Any, **options: Any) -> Any:
        with self._clock:
            return self._handle.wait(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
