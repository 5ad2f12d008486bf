"""The interface of all text generation engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from heliostat.infra.errors import ModelError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters and stop conditions."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling: tokens are drawn from the likeliest ones whose total probability reaches this."""
    top_k: int = 0
    """Tokens are drawn from this many likeliest ones; from all where it is below 1."""
    min_p: float = 0.0
    """Tokens are drawn from those at least this probable, as a share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens in the prompt or the response so far are divided by this, or multiplied where negative. It is
    applied before anything else, and to greedy decoding too."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Generation ends before any of these strings."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens to return log-probabilities for with each token; None for no
    log-probabilities."""


@dataclass(frozen=True)
class TokenScore:
    """A generated token with its log-probability (natural), before temperature and `top_p`."""

    text: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...] = ()
    """Text and log-probability of the likeliest tokens at this position, likeliest first."""


@dataclass(frozen=True)
class Delta:
    """A chunk of a response: whole characters only, never a part of a stop string."""

    text: str
    completion_tokens: int
    """Tokens generated so far."""
    finish_reason: FinishReason | None = None
    """Set on the last chunk."""
    scores: tuple[TokenScore, ...] = ()
    """Log-probabilities of the tokens since the previous chunk, if requested."""


class Engine(Protocol):
    """Generates text for many concurrent requests."""

    @property
    def defaults(self) -> Sampling:
        """The sampling of a request that says nothing of it: what the model's `generation_config.json` says."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt and response together, in tokens."""

    async def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a plain prompt; `add_special_tokens` is False if its text contains them already."""

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation, up to where the response begins.

        Raises RequestError if the model has no chat template or the template refuses the messages.
        """

    def generate(self, prompt: Sequence[int], sampling: Sampling, model: str) -> AsyncIterator[Delta]:
        """Streams the response to a prompt, by the adapter called `model`; by the model itself for any other name.

        Closing the iterator cancels the generation.
        """

    def check_health(self) -> None:
        """Raises if the engine can no longer generate."""

    def close(self) -> None:
        """Stops the engine and its threads."""


async def check_probe(engine: Engine, probe: dict[str, Any], model: str, *, exact: bool) -> None:
    """Sends `model` its published probe; see `compare_probe`."""
    asked = probe["input"]
    prompt = await engine.encode_prompt(asked["prompt"], add_special_tokens=False)
    sampling = replace(engine.defaults, max_tokens=asked["max_tokens"], temperature=0)
    text = "".join([delta.text async for delta in engine.generate(prompt, sampling, model)])
    compare_probe(text, probe, exact=exact)


def compare_probe(text: str, probe: dict[str, Any], *, exact: bool) -> None:
    """Raises ModelError if the text is empty but the trained model's was not, or, with `exact`, differs at all."""
    expected = probe["output"]["text"]
    if (text != expected) if exact else (expected and not text):
        raise ModelError(f"the loaded model answers its probe with {text!r}, the trained one with {expected!r}")
