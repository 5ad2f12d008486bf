"""Continuous batching: requests join and leave the running batch between two steps of the model."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from heliostat.infra import log
from heliostat.infra.log_fields import about_requests, request_id
from heliostat.infra.tracing.span import Span, current
from heliostat.serve.compute.model_thread import ModelThread
from heliostat.serve.engines.base import FinishReason, Sampling
from heliostat.serve.engines.kv_cache import KVCache
from heliostat.serve.engines.lora import Adapters
from heliostat.serve.engines.sampling import Sampled, Sampler, Score, sample
from heliostat.serve.metrics import ServeMetrics

PROMPT_TOKENS = 2048
"""Most prompt tokens, padding included, that are prefilled between two decoding steps."""
_log = log.get(__name__)

Event = tuple[int, FinishReason | None, Score | None]
"""A new token, the finish reason or None, and the token's score if requested."""


@dataclass(eq=False)
class Answer:
    """The scheduler's state of one request."""

    prompt: Sequence[int]
    sampling: Sampling
    sampler: Sampler
    loop: asyncio.AbstractEventLoop
    adapter: int | None = None
    """Index of its adapter; None for the base model."""
    events: asyncio.Queue[Event | Exception] = field(default_factory=asyncio.Queue)
    since: float = field(default_factory=time.perf_counter)
    """When its phase began: it waits, its prompt is read, its answer is written."""
    last: int = 0
    """The token that the next step reads."""
    generated: int = 0
    complete: bool = False
    """Has all its tokens, or has failed."""
    cancelled: bool = False
    request: str | None = field(default_factory=request_id)
    span: Span | None = field(default_factory=current)

    @property
    def length(self) -> int:
        """Filled positions in its row of the KV cache, once it has a token: all tokens but the last."""
        return len(self.prompt) + self.generated - 1

    @property
    def reserved(self) -> int:
        """The most positions that it may fill."""
        return len(self.prompt) + self.sampling.max_tokens


class Scheduler:
    """Runs a causal language model of transformers in a background thread.

    At most `max_rows` requests run at once. The KV cache has at most `max_cached` positions, all rows together, unless
    one request alone needs more; they are allocated before a request starts, and given back as requests leave. No pass
    takes longer than `pass_seconds`, unless the model is stuck.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        ends: frozenset[int],
        *,
        max_rows: int,
        max_cached: int,
        metrics: ServeMetrics,
        pass_seconds: float,
        adapters: Adapters | None = None,
    ) -> None:
        self.model = model
        self.adapters = adapters
        self.ends = ends
        self.max_rows = max_rows
        self.max_cached = max_cached
        self.metrics = metrics
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.cache = KVCache()
        self.running: list[Answer] = []
        self.waiting: deque[Answer] = deque()
        self._thread = ModelThread(
            "heliostat-engine",
            lambda: self.waiting or self.running,
            self._turn,
            trial=self._trial,
            pass_seconds=pass_seconds,
        )
        metrics.engine(0, 0, 0.0)

    def submit(self, prompt: Sequence[int], sampling: Sampling, model: str = "") -> Answer:
        """Queues a request, for the adapter called `model` if there is one.

        Its tokens arrive as events. Call it in the event loop that will read them.
        """
        sampler = Sampler(sampling, prompt, self.device)
        adapter = self.adapters.index.get(model) if self.adapters else None
        answer = Answer(prompt, sampling, sampler, asyncio.get_running_loop(), adapter)
        with self._thread.adding():
            self.waiting.append(answer)
        return answer

    def cancel(self, answer: Answer) -> None:
        """Cancels a request before the next step."""
        answer.cancelled = True

    def check_health(self) -> None:
        """Raises RuntimeError if the model can no longer answer; see `ModelThread.check`."""
        self._thread.check()

    def close(self) -> None:
        """Stops the thread after the current step."""
        self._thread.close()

    def _turn(self) -> None:
        try:
            self._advance_all()
        except Exception as error:  # not a request's: those are caught with the pass
            with about_requests(answer.request for answer in self.running):
                _log.exception("the scheduler failed; all running requests fail with it")
            self._fail(error)

    def _advance_all(self) -> None:
        """Prefills new prompts as far as there is room, then decodes one token for every running request."""
        self._drop(lambda answer: answer.cancelled)
        first = len(self.running)
        self.running.extend(self._admit())
        with torch.inference_mode():
            for run, start in ((self._prefill, first), (self._decode, 0)):
                self._pass(run, range(start, len(self.running)))
                self._drop(lambda answer: answer.complete)
        if not self.running:
            self.cache.clear()
        self.metrics.engine(len(self.running), len(self.waiting), self._reserved() / self.max_cached)

    def _reserved(self) -> int:
        """Positions of the KV cache that the running requests may fill."""
        return len(self.running) * max((answer.reserved for answer in self.running), default=0)

    def _pass(self, run: Callable[[range], torch.Tensor], rows: range) -> None:
        """Gives each of these rows its next token: `run` returns their logits [rows, vocabulary].

        A pass that fails is tried once more for each row alone, so that only those fail that cannot be computed.
        """
        if not rows:
            return
        answers = [self.running[row] for row in rows]
        found = self._attempt(run, rows, answers)
        if not isinstance(found, Exception):
            self._emit(answers, found)
        elif len(rows) == 1:
            self._emit(answers, [found])
        else:
            for row in rows:
                self._pass(run, range(row, row + 1))

    def _attempt(
        self, run: Callable[[range], torch.Tensor], rows: range, answers: Sequence[Answer]
    ) -> list[Sampled | Exception] | Exception:
        def sampled() -> list[Sampled | Exception]:
            found = sample(run(rows), [answer.sampler for answer in answers])
            if isinstance(found[0], Exception) and all(isinstance(one, Exception) for one in found):
                raise found[0]
            return found

        try:
            return self._thread.attempt(sampled)
        except Exception as error:
            with about_requests(answer.request for answer in answers):
                _log.warning("a pass over %d requests failed", len(rows), exc_info=True)
            return error.with_traceback(None)  # its frames hold the tensors of the pass

    def _trial(self) -> None:
        """Reads a prompt of one token; raises ArithmeticError if what follows is not finite."""
        if self.adapters:
            self.adapters.choose([None])
        ids = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        with torch.inference_mode():
            highest = self.model(input_ids=ids, use_cache=False).logits.max()
        if not highest.isfinite():
            raise ArithmeticError(f"the likeliest token has the logit {float(highest)}")

    def _drop(self, leaves: Callable[[Answer], bool]) -> None:
        """Removes requests from the running batch; the last row moves to the place of each that leaves."""
        for row in range(len(self.running) - 1, -1, -1):
            if leaves(self.running[row]):
                last = self.running.pop()
                if row < len(self.running):
                    self.cache.move(len(self.running), row, last.length)
                    self.running[row] = last

    def _admit(self) -> list[Answer]:
        """Takes the next prompts from the queue, in order, as far as rows, memory and the size of one prefill allow."""
        admitted: list[Answer] = []
        with self._thread.lock:
            while self.waiting and len(self.running) + len(admitted) < self.max_rows:
                candidate = self.waiting[0]
                if candidate.cancelled:
                    self.waiting.popleft()
                    continue
                if not self._fits(candidate, admitted):
                    break
                admitted.append(self.waiting.popleft())
        for answer in admitted:
            self._ends("queue", answer)
        return admitted

    def _ends(self, phase: str, answer: Answer) -> None:
        now = time.perf_counter()
        self.metrics.phase(phase, now - answer.since, answer.span)
        answer.since = now

    def _fits(self, candidate: Answer, admitted: Sequence[Answer]) -> bool:
        batch = [*admitted, candidate]
        longest_prompt = max(len(answer.prompt) for answer in batch)
        if admitted and longest_prompt * len(batch) > PROMPT_TOKENS:
            return False
        all_models = [*self.running, *batch]
        return len(all_models) == 1 or len(all_models) * max(one.reserved for one in all_models) <= self.max_cached

    def _prefill(self, rows: range) -> torch.Tensor:
        """Reads the prompts of these rows; returns the logits [rows, vocabulary] after each."""
        answers = [self.running[row] for row in rows]
        self._fit_cache(rows.stop)
        self.cache.read_prompts(rows[0], [len(answer.prompt) for answer in answers])
        return self._forward(answers, *left_padded([answer.prompt for answer in answers]))

    def _decode(self, rows: range) -> torch.Tensor:
        """Reads the last token of these rows; returns the logits [rows, vocabulary] after each."""
        self.metrics.batch(len(rows))
        answers = [self.running[row] for row in rows]
        positions = torch.tensor([answer.length for answer in answers])
        longest = int(positions.max()) + 1
        self._fit_cache(len(self.running))
        self.cache.step(rows[0], positions.to(self.device), longest)
        ids = torch.tensor([[answer.last] for answer in answers])
        seen = torch.arange(longest) <= positions[:, None]
        return self._forward(answers, ids, positions[:, None], None if bool(seen.all()) else seen[:, None, None])

    def _fit_cache(self, rows: int) -> None:
        """Allocates all that the first `rows` requests may fill, so that none can run out of memory half-way."""
        self.cache.fit(rows, max(answer.reserved for answer in self.running[:rows]), self.max_cached)

    def _forward(
        self, answers: Sequence[Answer], ids: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor | None
    ) -> torch.Tensor:
        if self.adapters:
            self.adapters.choose([answer.adapter for answer in answers])
        mask = None
        if seen is not None:
            mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill(~seen, float("-inf")).to(self.device)
        out = self.model(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]

    def _emit(self, answers: Sequence[Answer], found: Sequence[Sampled | Exception]) -> None:
        """Publishes each request's next token, or what it failed with."""
        news: list[tuple[Answer, Event | Exception]] = []
        for answer, one in zip(answers, found, strict=True):
            if isinstance(one, Exception):
                with about_requests([answer.request]):
                    _log.error("a request failed, and no other one with it", exc_info=one)
                answer.complete = True
                news.append((answer, one))
            else:
                news.append((answer, self._advance(answer, *one)))
        _publish(news)

    def _advance(self, answer: Answer, token: int, score: Score | None) -> Event:
        answer.last = token
        answer.generated += 1
        reason: FinishReason | None = None
        if token in self.ends:
            reason = "stop"
        elif answer.generated >= answer.sampling.max_tokens:
            reason = "length"
        answer.complete = reason is not None
        if answer.generated == 1:
            self._ends("prefill", answer)
        if answer.complete:
            self._ends("decode", answer)
        return token, reason, score

    def _fail(self, error: Exception) -> None:
        failed, self.running = self.running, []
        self.cache.clear()
        _publish([(answer, error) for answer in failed])


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Ids and positions [prompts, longest], and the attention mask [prompts, 1, longest, longest].

    The mask is None if no prompt is padded: then attention is causal.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    width = int(lengths.max())
    ids = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts])
    column, start = torch.arange(width), (width - lengths)[:, None]
    if not start.any():
        return ids, column.expand(len(prompts), -1), None
    # A padding token sees only itself: seeing nothing would give NaN.
    real = (column >= start)[:, None] | torch.eye(width, dtype=torch.bool)
    return ids, (column - start).clamp(min=0), (real & (column <= column[:, None]))[:, None]


def _publish(news: Sequence[tuple[Answer, Event | Exception]]) -> None:
    """Publishes the events, waking each event loop only once."""
    for loop in {answer.loop for answer, _ in news}:
        mine = [(answer, event) for answer, event in news if answer.loop is loop]
        try:
            loop.call_soon_threadsafe(_put, mine)
        except RuntimeError:  # the loop is closed, and its requests with it
            continue


def _put(news: Sequence[tuple[Answer, Event | Exception]]) -> None:
    for answer, event in news:
        answer.events.put_nowait(event)
