"""What an engine does, whichever library generates the text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from heliostat.infra.errors import ModelError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen, and when to stop."""

    max_tokens: int
    temperature: float = 1.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Tokens are drawn from the likeliest ones that hold this much probability together."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """The answer ends before any of these strings."""
    top_logprobs: int | None = None
    """With each token its log-probability is told, and those of so many of the likeliest; None where none is."""


@dataclass(frozen=True)
class TokenScore:
    """A token of an answer with its natural logarithm of probability, before temperature and `top_p`."""

    text: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...] = ()
    """Text and log-probability of the likeliest tokens in its place, the likeliest first."""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: whole characters only, never a part of a stop string."""

    text: str
    completion_tokens: int
    """Tokens generated so far."""
    finish_reason: FinishReason | None = None
    """Set on the last piece."""
    scores: tuple[TokenScore, ...] = ()
    """Of the tokens since the piece before, where they were asked for."""


class Engine(Protocol):
    """Generates text for many requests at once."""

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may have together."""

    async def encode_prompt(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a plain prompt; without special tokens where the prompt has them in its text."""

    async def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation, up to where the answer begins.

        Raises RequestError where the model has no chat template or the template refuses the messages.
        """

    def generate(self, prompt: Sequence[int], sampling: Sampling, model: str) -> AsyncIterator[Delta]:
        """The answer of the adapter called `model` to a prompt, piece by piece; of the model itself by any other name.

        Closing the iterator ends the work on it.
        """

    def check_health(self) -> None:
        """Raises where the engine can generate no more."""

    def close(self) -> None:
        """Ends the engine and its threads."""


async def check_probe(engine: Engine, probe: dict[str, Any], model: str, *, exact: bool) -> None:
    """Asks what `model` was asked when it was published; see `compare_probe`."""
    asked = probe["input"]
    prompt = await engine.encode_prompt(asked["prompt"], add_special_tokens=False)
    sampling = Sampling(asked["max_tokens"], temperature=0)
    text = "".join([delta.text async for delta in engine.generate(prompt, sampling, model)])
    compare_probe(text, probe, exact=exact)


def compare_probe(text: str, probe: dict[str, Any], *, exact: bool) -> None:
    """Raises ModelError where the model says nothing though the trained one did, or, with `exact`, anything else."""
    expected = probe["output"]["text"]
    if (text != expected) if exact else (expected and not text):
        raise ModelError(f"the loaded model answers its probe with {text!r}, the trained one with {expected!r}")
