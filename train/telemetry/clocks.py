"""Where the seconds of training go: what it waits for data, for other workers, for a checkpoint's copy."""

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
"""What DeepSpeed's backend can be asked for."""


class Clock:
    """Adds up the seconds inside `with clock:`; blocks inside such a block count once.

    On a GPU they are those that its stream took to get from one end of the block to the other: exposed, not hidden
    behind computing.
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

    def take(self) -> float:
        """Seconds since this was last asked; on a GPU, what was launched before must have ended."""
        spans, self._spans = self._spans, []
        return sum(_seconds(start, end) for start, end in spans)


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


class Clocks:
    """What training waits for."""

    def __init__(self, device: str = "cpu") -> None:
        """For a worker on `cpu` or `cuda`."""
        self.data = Clock(device)
        """Records put together and brought to the device."""
        self.communication = Clock(device)
        """Collective operations, and in them workers that are slower; see `watch_collectives`."""


def watch_collectives(clock: Clock) -> None:
    """Has `clock` run in every collective operation of DeepSpeed in this process, in place of any clock before."""
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
    """An operation under way, whose `wait` is timed."""

    def __init__(self, handle: Any, clock: Clock) -> None:
        self._handle = handle
        self._clock = clock

    def wait(self, *args: Any, **options: Any) -> Any:
        with self._clock:
            return self._handle.wait(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
