"""Sampling of the next token of each running request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from heliostat.serve.engines.base import Sampling

CANDIDATES = 256
"""How many of the likeliest tokens are tried for `top_p` before the whole vocabulary is sorted."""
LOWEST_TEMPERATURE = 0.01
"""What a lower temperature above 0 is taken as, as in vLLM: logits divided by less may overflow."""
LOWEST_LOGPROB = -9999.0
"""What stands for the log-probability of a token that cannot come, as in vLLM: JSON has no infinity."""


def generator_of(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """The random generator of one request; None for greedy decoding.

    Any integer is a seed, by its lowest 64 bits; -1 stands for none, as in vLLM.
    """
    if sampling.temperature == 0:
        return None
    generator = torch.Generator(device)
    if sampling.seed in (None, -1):
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % 2**64)
    return generator


@dataclass(frozen=True)
class Score:
    """Log-probability of a token, and ids and log-probabilities of the likeliest ones at its position."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...]


Sampled = tuple[int, Score | None]
"""A token id, and its score if requested."""


def sample(
    logits: torch.Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[Sampled | Exception]:
    """The next token of each row of `logits` [requests, vocabulary]; for a row that fails, what it raised.

    The rows of a batch belong to several clients, so none may fail for another one.
    """
    highest, likeliest = logits.max(dim=-1)
    found: list[Sampled | Exception] = []
    for row, top, token, sampling, generator in zip(
        logits, highest.tolist(), likeliest.tolist(), samplings, generators, strict=True
    ):
        try:
            found.append(_sampled(row, top, token, sampling, generator))
        except Exception as error:
            found.append(error)
    return found


def _sampled(
    logits: torch.Tensor, top: float, likeliest: int, sampling: Sampling, generator: torch.Generator | None
) -> Sampled:
    if not math.isfinite(top):  # that of a row with NaN is NaN
        raise ArithmeticError(f"the likeliest token of a request has the logit {top}")
    token = likeliest
    if generator is not None:
        token = draw(logits.float() / max(sampling.temperature, LOWEST_TEMPERATURE), sampling.top_p, generator)
    return token, None if sampling.top_logprobs is None else _score(logits, token, sampling.top_logprobs)


def _score(logits: torch.Tensor, token: int, count: int) -> Score:
    found = logits.float().log_softmax(dim=-1).clamp(min=LOWEST_LOGPROB)
    values, ids = found.topk(min(count, len(found)))
    return Score(float(found[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def draw(logits: torch.Tensor, top_p: float, generator: torch.Generator) -> int:
    """Draws a token from the smallest set of likeliest tokens whose probability reaches `top_p`, at least one.

    Nucleus sampling, Holtzman et al. 2020 (https://arxiv.org/abs/1904.09751).
    """
    probabilities = logits.softmax(dim=-1)
    if top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=generator))
    likeliest, ids = probabilities.topk(min(CANDIDATES, len(probabilities)))
    if likeliest.sum() < top_p:
        likeliest, ids = probabilities.sort(descending=True)
    before = likeliest.cumsum(dim=-1) - likeliest
    kept = likeliest * (before < top_p)
    kept[0] = likeliest[0]  # also where `top_p` is 0 in float32
    return int(ids[torch.multinomial(kept, 1, generator=generator)])
