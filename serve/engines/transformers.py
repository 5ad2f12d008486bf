"""The engine that needs only transformers: any causal language model, on a CPU or a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra.errors import ModelError
from heliostat.serve.compute.devices import cache_bytes, device_of, dtype_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.engines.base import Delta, Sampling, TokenScore
from heliostat.serve.engines.text import TextStream
from heliostat.serve.errors import invalid
from heliostat.serve.metrics import ServeMetrics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from heliostat.serve.engines.lora import Adapters
    from heliostat.serve.engines.sampling import Score
    from heliostat.serve.engines.scheduler import Answer, Event

DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What is taken from a model's generation_config.json, as by vLLM, whether or not it says `do_sample`."""
ATTENTION = frozenset({"full_attention", "sliding_attention"})


class TransformersEngine:
    """Continuous batching with a transformers model; greedy results equal those of its own `generate`."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerFast,
        config: ServeConfig,
        metrics: ServeMetrics,
        adapters: Adapters | None = None,
    ) -> None:
        from heliostat.serve.engines.scheduler import Scheduler

        self.tokenizer = tokenizer
        self.defaults = sampling_of(model)
        self.context_tokens = context_of(model.config)
        self.encoding = ThreadPoolExecutor(1, thread_name_prefix="heliostat-tokenizer")
        self.scheduler = Scheduler(
            model,
            end_tokens(model),
            max_rows=config.max_batch_size,
            max_cached=max(self.context_tokens, cache_positions(model)),
            metrics=metrics,
            pass_seconds=config.timeout_seconds,
            adapters=adapters,
        )

    @property
    def is_exact(self) -> bool:
        """Whether it computes in float32, as the model that answered the published probe did."""
        import torch

        return self.scheduler.dtype == torch.float32

    async def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a plain prompt."""
        return await self._in_thread(self._encode, prompt, add_special_tokens)

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation; raises RequestError if the chat template is missing or refuses it."""
        return await self._in_thread(self._encode_chat, messages)

    async def _in_thread(self, function: Any, *args: Any) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(self.encoding, function, *args)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        backend = self.tokenizer.backend_tokenizer
        return backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def _encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise invalid("messages", "messages: this model has no chat template; use /v1/completions")
        try:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise invalid("messages", f"messages: the model's chat template refuses them: {error}") from error
        return self._encode(text, False)

    async def generate(self, prompt: Sequence[int], sampling: Sampling, model: str = "") -> AsyncIterator[Delta]:
        """Streams the response; closing the iterator removes the request from the batch."""
        stream, count = TextStream(self.tokenizer.backend_tokenizer, sampling.stop), 0
        answer = self.scheduler.submit(prompt, sampling, model)
        try:
            told: list[TokenScore] = []
            while True:
                piece, reason = "", None
                for token, reason, score in await _events(answer):
                    piece, count = piece + stream.push(token), count + 1
                    if score and reason != "stop":  # the end token is not part of the response
                        told.append(self._told(token, score))
                    if stream.stopped:
                        reason = "stop"
                    if reason:
                        break
                if reason:
                    yield Delta(piece + stream.finish(), count, reason, tuple(told))
                    return
                if piece:
                    yield Delta(piece, count, None, tuple(told))
                    told.clear()
        finally:
            self.scheduler.cancel(answer)

    def _told(self, token: int, score: Score) -> TokenScore:
        def text(one: int) -> str:
            return self.tokenizer.backend_tokenizer.decode([one], skip_special_tokens=False)

        return TokenScore(text(token), score.logprob, tuple((text(one), value) for one, value in score.likeliest))

    def check_health(self) -> None:
        """Raises RuntimeError if the model can no longer answer."""
        self.scheduler.check_health()

    def close(self) -> None:
        """Stops the threads."""
        self.scheduler.close()
        self.encoding.shutdown(wait=False)


async def _events(answer: Answer) -> list[Event]:
    """All pending events of a request, at least one; raises what the model raised."""
    events = [await answer.events.get()]
    while not answer.events.empty():
        events.append(answer.events.get_nowait())
    for event in events:
        if isinstance(event, Exception):
            raise event
    return events  # type: ignore[return-value]


def context_of(config: Any) -> int:
    """Context length of a model; limited to the sliding window, within which full attention gives the same result.

    Raises ModelError for layers with other state than keys and values.
    """
    text = config.get_text_config()
    others = set(getattr(text, "layer_types", None) or ()) - ATTENTION
    if others:
        raise ModelError(
            f"layer_types: {', '.join(sorted(others))} in this model; the transformers engine serves "
            f"{', '.join(sorted(ATTENTION))}"
        )
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    return min(text.max_position_embeddings, window or text.max_position_embeddings)


def cache_positions(model: Any) -> int:
    """How many tokens fit in the KV cache's share of memory."""
    text, weight = model.config.get_text_config(), next(model.parameters())
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token_bytes = 2 * text.num_hidden_layers * heads * size * weight.element_size()
    return cache_bytes(weight.device) // token_bytes


def sampling_of(model: Any) -> Sampling:
    """The sampling that the model's generation config asks for, for one token."""
    said = model.generation_config.to_diff_dict()
    return Sampling(1, **{name: said[name] for name in DEFAULTS if said.get(name) is not None})


def end_tokens(model: Any) -> frozenset[int]:
    """The tokens that end a response: exactly those of `generate`, so that both give the same result."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def load(
    folder: Path, config: ServeConfig, metrics: ServeMetrics, adapters: Mapping[str, Path] | None = None
) -> TransformersEngine:
    """The engine for the model folder `folder`, with the adapters in these folders.

    Raises ModelError if the model is not supported or an adapter does not fit it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from heliostat.serve.compute.cpu import pack
    from heliostat.serve.engines.attention import register
    from heliostat.serve.engines.lora import attach

    context_of(AutoConfig.from_pretrained(folder))
    device = device_of(config)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(config, device), attn_implementation=register())
    packed = pack(model.eval().to(device))
    beside = attach(packed, adapters) if adapters else None
    return TransformersEngine(packed, AutoTokenizer.from_pretrained(folder), config, metrics, beside)
