"""Records vLLM's activity as Heliostat metrics, and counts tokens towards the request's key."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

from heliostat.serve.access.quota import count_tokens
from heliostat.serve.engines.vllm_health import Watchdog
from heliostat.serve.metrics import ServeMetrics


class Metered(AsyncLLM):
    """A vLLM engine that counts tokens for the current request's key and for the adapter that answers."""

    metrics: ServeMetrics
    labels: Mapping[str, str]
    """Metric label of each adapter, by name."""
    watchdog: Watchdog | None = None
    """Hears of each result."""

    async def generate(self, prompt: Any, sampling_params: Any, *args: Any, **options: Any) -> AsyncGenerator[Any]:
        """As in AsyncLLM, and counts tokens."""
        is_first, cumulative = True, sampling_params.output_kind is RequestOutputKind.CUMULATIVE
        told = 0
        async for output in super().generate(prompt, sampling_params, *args, **options):
            written = sum(len(one.token_ids) for one in output.outputs)
            self._count("completion", written - told, options)
            self._count("prompt", is_first * len(output.prompt_token_ids or ()), options)
            is_first, told = False, written if cumulative else 0
            yield output

    async def encode(self, *args: Any, **options: Any) -> AsyncGenerator[Any]:
        """As in AsyncLLM, and counts tokens."""
        async for output in super().encode(*args, **options):
            self._count("prompt", len(output.prompt_token_ids or ()), options)
            yield output

    def _count(self, kind: str, tokens: int, options: Mapping[str, Any]) -> None:
        if self.watchdog:
            self.watchdog.answered()
        adapter = options.get("lora_request")
        count_tokens(tokens)
        self.metrics.tokens(kind, tokens, self.labels[adapter.lora_name] if adapter else "")


def counter(metrics: ServeMetrics) -> Callable[..., StatLoggerBase]:
    """The class of the stat logger that vLLM calls after each step."""

    class Counter(StatLoggerBase):
        """Records batch sizes and times to first token."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            """vLLM's configuration is not needed. An engine that nobody has asked yet is idle."""
            metrics.engine(0, 0, 0.0)

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            """Called after each step of the engine."""
            if scheduler_stats is not None:
                _scheduled(metrics, scheduler_stats)
            if iteration_stats is not None:
                _iterated(metrics, iteration_stats)

        def log_engine_initialized(self) -> None:
            """Does nothing: the replica logs this itself."""

    return Counter


def _scheduled(metrics: ServeMetrics, stats: Any) -> None:
    if stats.num_running_reqs:
        metrics.batch(stats.num_running_reqs)
    metrics.engine(stats.num_running_reqs, stats.num_waiting_reqs, stats.kv_cache_usage)
    metrics.prefix_cache(stats.prefix_cache_stats.queries, stats.prefix_cache_stats.hits)


def _iterated(metrics: ServeMetrics, stats: Any) -> None:
    for seconds in stats.time_to_first_tokens_iter:
        metrics.first_token(seconds)
    for seconds in stats.inter_token_latencies_iter:
        metrics.inter_token(seconds)
    for request in stats.finished_requests:
        phases = {"queue": request.queued_time, "prefill": request.prefill_time, "decode": request.decode_time}
        for phase, seconds in phases.items():
            if seconds >= 0:  # one that is given up before a phase began has a time below zero for it
                metrics.phase(phase, seconds)
