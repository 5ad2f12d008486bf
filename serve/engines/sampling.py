"""Sampling of the next token of each running request: penalty, temperature, min_p, top_k, top_p, in vLLM's order."""

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


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], device: torch.device) -> None:
        self.sampling = sampling
        self.generator = generator_of(sampling, device)
        self._penalised = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._penalised_ids = torch.tensor(sorted(self._penalised), dtype=torch.long, device=device)

    def next(self, logits: torch.Tensor, top: float, likeliest: int) -> Sampled:
        """The next token for `logits` [vocabulary], whose greatest, `top`, is that of the token `likeliest`.

        Raises ArithmeticError if it is not finite. Scores are those before penalty and sampling, as in vLLM.
        """
        if not math.isfinite(top):  # NaN anywhere in the row makes it NaN
            raise ArithmeticError(f"the likeliest token of a request has the logit {top}")
        sampling, token = self.sampling, likeliest
        if self.generator:
            token = draw(warped(self._with_penalty(logits.float()), sampling), sampling.top_p, self.generator)
        elif sampling.repetition_penalty != 1:
            token = int(self._with_penalty(logits.float()).argmax())
        self._penalise(token)
        return token, None if sampling.top_logprobs is None else _score(logits, token, sampling.top_logprobs)

    def _with_penalty(self, logits: torch.Tensor) -> torch.Tensor:
        """Keskar et al. 2019 (https://arxiv.org/abs/1909.05858)."""
        if self.sampling.repetition_penalty == 1:
            return logits
        ids, penalty = self._penalised_ids, self.sampling.repetition_penalty
        found = logits[ids]
        return logits.index_copy(0, ids, torch.where(found < 0, found * penalty, found / penalty))

    def _penalise(self, token: int) -> None:
        if self.sampling.repetition_penalty != 1 and token not in self._penalised:
            self._penalised.add(token)
            self._penalised_ids = torch.cat([self._penalised_ids, self._penalised_ids.new_tensor([token])])


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Sampled | Exception]:
    """The next token of each row of `logits` [requests, vocabulary]; for a row that fails, what it raised.

    The rows of a batch belong to several clients, so none may fail for another one.
    """
    highest, likeliest = logits.max(dim=-1)
    found: list[Sampled | Exception] = []
    for row, top, token, sampler in zip(logits, highest.tolist(), likeliest.tolist(), samplers, strict=True):
        try:
            found.append(sampler.next(row, top, token))
        except Exception as error:
            found.append(error)
    return found


def warped(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`logits` [vocabulary] at the request's temperature, without those that `min_p` and `top_k` rule out.

    At least the likeliest token is left.
    """
    logits = logits / max(sampling.temperature, LOWEST_TEMPERATURE)
    if sampling.min_p > 0:
        logits = logits.masked_fill(logits < logits.max() + math.log(min(sampling.min_p, 1)), -torch.inf)
    if 0 < sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    return logits


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
