"""Sampling of the next token of each running request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from heliostat.serve.engines.base import Sampling

CANDIDATES = 256
"""How many of the likeliest tokens are tried for `top_p` before the whole vocabulary is sorted."""


def generator_of(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """The random generator of one request; None for greedy decoding."""
    if sampling.temperature == 0:
        return None
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def next_tokens(
    logits: torch.Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """One token id for each row of `logits` [requests, vocabulary]."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, (sampling, generator) in enumerate(zip(samplings, generators, strict=True)):
        if generator is not None:
            tokens[row] = draw(logits[row].float() / sampling.temperature, sampling.top_p, generator)
    return tokens


@dataclass(frozen=True)
class Score:
    """Log-probability of a token, and ids and log-probabilities of the likeliest ones at its position."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...]


def scores(logits: torch.Tensor, samplings: Sequence[Sampling], tokens: Sequence[int]) -> list[Score | None]:
    """The scores of `tokens`, for each row of `logits` [requests, vocabulary]; None for rows without `top_logprobs`."""
    return [
        None if sampling.top_logprobs is None else _score(row, token, sampling.top_logprobs)
        for row, sampling, token in zip(logits, samplings, tokens, strict=True)
    ]


def _score(logits: torch.Tensor, token: int, count: int) -> Score:
    found = logits.float().log_softmax(dim=-1)
    values, ids = found.topk(count)
    return Score(float(found[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def draw(logits: torch.Tensor, top_p: float, generator: torch.Generator) -> int:
    """Draws a token from the smallest set of likeliest tokens whose probability reaches `top_p`.

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
    return int(ids[torch.multinomial(kept, 1, generator=generator)])
