"""Dynamic batching without a waiting time.

One thread runs the model. While it is busy, requests queue; when it is free, it takes the oldest and, if the model
pads, those of similar length. A request that finds the model idle starts at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from heliostat.infra import log
from heliostat.infra.log_fields import about_requests, request_id
from heliostat.infra.tracing.span import Span, current
from heliostat.serve.compute.model_thread import ModelThread
from heliostat.serve.metrics import ServeMetrics

_log = log.get(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """Limits of a batch."""

    size: int
    """Number of items."""
    tokens: int
    """Tokens that the model computes, padding included."""
    padding_share: float | None = 1.0
    """Largest share of padding among them; None for a model that does not pad."""


@dataclass
class _Waiting(Generic[Item, Result]):
    item: Item
    length: int
    answer: asyncio.Future[Result]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.perf_counter)
    request: str | None = field(default_factory=request_id)
    span: Span | None = field(default_factory=current)


class Batcher(Generic[Item, Result]):
    """Runs `run` on batches in a background thread and returns each caller its own result.

    `limits` bound the size of a batch; `metrics` record sizes, waits and passes. `check_health` goes by whether the
    model takes `blank`, an item that it must take, and whether a pass takes longer than `pass_seconds`.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        length: Callable[[Item], int],
        limits: Limits,
        metrics: ServeMetrics,
        *,
        blank: Item,
        pass_seconds: float,
    ) -> None:
        self.run = run
        self.length = length
        self.limits = limits
        self.metrics = metrics
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._thread = ModelThread(
            "heliostat-batcher",
            lambda: self._queue,
            self._turn,
            trial=lambda: self.run([blank]),
            pass_seconds=pass_seconds,
        )

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results, in order; raises what the model raised for one of them.

        The items of a caller that is cancelled, or of which one failed, leave the queue.
        """
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(item, self.length(item), loop.create_future(), loop) for item in items]
        with self._thread.adding():
            self._queue.extend(waiting)
        try:
            return list(await asyncio.gather(*(one.answer for one in waiting)))
        finally:
            for one in waiting:
                one.answer.cancel()

    def check_health(self) -> None:
        """Raises RuntimeError if the model can no longer answer; see `ModelThread.check`."""
        self._thread.check()

    def close(self) -> None:
        """Stops the thread after the current batch."""
        self._thread.close()

    def _turn(self) -> None:
        with self._thread.lock:
            batch = self._take()
        if batch:
            taken = time.perf_counter()
            spans = _spans(batch)
            for one, span in zip(batch, spans, strict=True):
                self.metrics.phase("queue", taken - one.since, span)
            self._answer(batch)
            for span in spans:
                self.metrics.phase("compute", time.perf_counter() - taken, span)

    def _take(self) -> list[_Waiting[Item, Result]]:
        queue = [one for one in self._queue if not one.answer.cancelled()]
        chosen = set(choose([one.length for one in queue], self.limits))
        self._queue = deque(one for at, one in enumerate(queue) if at not in chosen)
        return [one for at, one in enumerate(queue) if at in chosen]

    def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        """Runs a batch; if that fails, each item once more alone, so that only those fail that cannot be computed."""
        found, loop = self._attempt(batch), batch[0].loop
        if not isinstance(found, Exception):
            loop.call_soon_threadsafe(_resolve, batch, found)
        elif len(batch) == 1:
            loop.call_soon_threadsafe(_reject, batch[0], found)
        else:
            for one in batch:
                if not one.answer.done():
                    self._answer([one])

    def _attempt(self, batch: Sequence[_Waiting[Item, Result]]) -> Sequence[Result] | Exception:
        items = [one.item for one in batch]
        self.metrics.batch(len(items))
        try:
            return self._thread.attempt(lambda: self._results(items))
        except Exception as error:
            with about_requests(one.request for one in batch):
                _log.warning("a pass over %d inputs failed", len(items), exc_info=True)
            return error.with_traceback(None)  # its frames hold the tensors of the pass

    def _results(self, items: list[Item]) -> Sequence[Result]:
        results = self.run(items)
        if len(results) != len(items):
            raise ValueError(f"the model gave {len(results)} results for {len(items)} inputs")
        return results


def choose(lengths: Sequence[int], limits: Limits) -> list[int]:
    """Indices of the items of the next batch, within `limits`.

    The oldest (index 0) always goes, so that none starves. With it go the next in the queue or, if the model pads,
    those nearest to it in length.
    """
    if not lengths:
        return []
    pads, share = limits.padding_share is not None, limits.padding_share or 0.0
    chosen, longest, tokens = [0], lengths[0], lengths[0]
    for at in sorted(range(1, len(lengths)), key=lambda at: pads and abs(lengths[at] - lengths[0])):
        if len(chosen) == limits.size:
            break
        width, useful = max(longest, lengths[at]), tokens + lengths[at]
        computed = (len(chosen) + 1) * width if pads else useful
        if computed <= limits.tokens and computed - useful <= share * computed:
            chosen.append(at)
            longest, tokens = width, useful
    return chosen


def _spans(batch: Sequence[_Waiting[Item, Result]]) -> list[Span | None]:
    """The span of each one's request, once for each request: its inputs go through a pass together."""
    spans = [one.span for one in batch]
    return [span if at == spans.index(span) else None for at, span in enumerate(spans)]


def _resolve(batch: Sequence[_Waiting[Item, Result]], results: Sequence[Result]) -> None:
    for one, result in zip(batch, results, strict=True):
        if not one.answer.done():
            one.answer.set_result(result)


def _reject(one: _Waiting[Item, Result], error: Exception) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)
