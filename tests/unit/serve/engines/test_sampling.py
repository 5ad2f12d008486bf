from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from heliostat.serve.engines.base import Sampling
from heliostat.serve.engines.sampling import LOWEST_LOGPROB, Sampler, draw, generator_of, sample, warped

CPU = torch.device("cpu")
LOWEST = 5e-324
"""The least number above 0 that JSON can say."""


def samplers(samplings: Sequence[Sampling]) -> list[Sampler]:
    return [Sampler(sampling, [], CPU) for sampling in samplings]


def tokens(logits: torch.Tensor, samplings: Sequence[Sampling]) -> list[int]:
    """One draw for each row, each with a generator of its own; raises what a row raised."""
    found = sample(logits, samplers(samplings))
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one[0] for one in found if not isinstance(one, Exception)]


def test_greedy_rows_take_the_likeliest_and_leave_the_others_alone() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0], [9.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    samplings = [Sampling(1, temperature=0), Sampling(1, temperature=0), Sampling(1, temperature=1, seed=0)]
    assert [generator_of(sampling, CPU) for sampling in samplings[:2]] == [None, None]
    assert tokens(logits, samplings) == [1, 0, 2]


def test_a_seed_repeats_the_same_draws() -> None:
    logits = torch.zeros(1, 1000)

    def draws(seed: int | None) -> list[int]:
        generator = generator_of(Sampling(1, seed=seed), CPU)
        assert generator
        return [draw(logits[0], 1.0, generator) for _ in range(8)]

    assert draws(7) == draws(7)
    assert draws(7) != draws(8)
    assert draws(None) != draws(None)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.1, {3}), (0.49, {3}), (0.6, {3, 1}), (0.81, {3, 1, 0}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: set[int]) -> None:
    logits = torch.tensor([0.15, 0.3, 0.05, 0.5]).log()
    generator = torch.Generator().manual_seed(0)
    assert {draw(logits, top_p, generator) for _ in range(300)} == kept


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log()
    generator = torch.Generator().manual_seed(0)
    counts = Counter(draw(logits, 0.95, generator) for _ in range(3000))
    assert [counts[token] / 3000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_a_flat_distribution_looks_beyond_the_first_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = {draw(torch.zeros(2000), 0.9, generator) for _ in range(1500)}
    assert 700 < len(drawn) <= 1800


def test_a_low_temperature_sharpens() -> None:
    logits = torch.tensor([[1.0, 1.2, 0.0]])
    assert {tokens(logits, [Sampling(1, temperature=0.01, seed=seed)])[0] for seed in range(50)} == {1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [LOWEST, 1e-300, 1e-45, 1e-38, 1e-6, 0.01, 2.0])
@pytest.mark.parametrize("top_p", [LOWEST, 1e-300, 1e-45, 1e-38, 1e-6, 0.5, 1 - 1e-16, 1.0])
def test_every_allowed_temperature_and_top_p_draws_a_token(
    temperature: float, top_p: float, dtype: torch.dtype
) -> None:
    logits = torch.tensor([[4e4, 1.0, -4e4, float("-inf")], [0.0, 1.0, 0.9, -3.0]], dtype=dtype)
    drawn = tokens(logits, [Sampling(1, temperature, top_p, seed=1)] * 2)
    assert drawn[0] == 0
    assert drawn[1] in range(4) if temperature > 0.01 and top_p > 0.4 else drawn[1] == 1


@pytest.mark.parametrize("seed", [-(10**30), -(2**63), -2, 0, 2**32, 2**63, 2**64 - 1, 10**30])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert len({tokens(torch.zeros(1, 10**5), [Sampling(1, seed=seed)])[0] for _ in range(3)}) == 1


def test_the_seed_minus_one_stands_for_none() -> None:
    assert len({tokens(torch.zeros(1, 10**5), [Sampling(1, seed=-1)])[0] for _ in range(8)}) > 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "all -inf"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_has_no_next_token_fails_and_no_other(bad: float | str, temperature: float) -> None:
    logits = torch.tensor([[0.0, 5.0], [0.0, 0.0], [9.0, -9.0]])
    if isinstance(bad, str):
        logits[1] = float("-inf")
    else:
        logits[1, 0] = bad
    samplings = [Sampling(1, temperature, seed=0)] * 3
    found = sample(logits, samplers(samplings))
    assert isinstance(found[1], ArithmeticError)
    assert [found[0], found[2]] == [(1, None), (0, None)]


def test_a_row_whose_draw_raises_fails_and_no_other() -> None:
    samplings = [Sampling(1, temperature=0), Sampling(1, top_logprobs=1), Sampling(1, temperature=0)]
    rows = samplers(samplings)
    rows[1].generator = object()  # type: ignore[assignment]
    found = sample(torch.zeros(3, 4), rows)
    assert [found[0], found[2]] == [(0, None), (0, None)]
    assert isinstance(found[1], TypeError)


def test_scores_are_numbers_that_json_has() -> None:
    logits = torch.tensor([[0.0, float("-inf"), float("-inf")]])
    ((token, score),) = sample(logits, samplers([Sampling(1, temperature=0, top_logprobs=20)]))  # type: ignore[misc]
    assert token == 0
    assert score is not None
    assert [value for _, value in score.likeliest] == [0, LOWEST_LOGPROB, LOWEST_LOGPROB]


def left(logits: torch.Tensor, **sampling: float) -> list[int]:
    """The tokens that may be drawn."""
    found: list[int] = warped(logits, Sampling(1, **sampling)).isfinite().nonzero().flatten().tolist()  # type: ignore[arg-type]
    return found


def test_top_k_and_min_p_leave_what_transformers_leaves() -> None:
    drawn = torch.Generator().manual_seed(0)
    nothing = torch.zeros(1, 1, dtype=torch.long)
    for k, share in ((1, 0.5), (7, 0.02), (100, 1.0), (1000, 1e-9)):
        logits = torch.randn(100, generator=drawn) * 3
        kept = TopKLogitsWarper(k)(nothing, logits[None])[0]
        assert left(logits, top_k=k) == kept.isfinite().nonzero().flatten().tolist()
        kept = MinPLogitsWarper(share)(nothing, logits[None] / 2)[0]
        assert left(logits, min_p=share, temperature=2) == kept.isfinite().nonzero().flatten().tolist()
    assert left(logits, top_k=0, min_p=0) == list(range(100))
    assert left(logits, top_k=-1) == list(range(100))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_penalty_is_that_of_transformers_for_prompt_and_answer(temperature: float) -> None:
    drawn, prompt = torch.Generator().manual_seed(0), [3, 9, 3, 40]
    sampler = Sampler(Sampling(1, temperature, repetition_penalty=1.7, seed=5), prompt, CPU)
    expected = generator_of(Sampling(1, temperature, seed=5), CPU)
    processor = RepetitionPenaltyLogitsProcessor(1.7)
    for _ in range(20):
        logits = torch.randn(1, 50, generator=drawn)
        penalised = processor(torch.tensor([prompt]), logits)[0]
        ((token, _),) = sample(logits, [sampler])  # type: ignore[misc]
        assert token == (draw(penalised, 1.0, expected) if expected else int(penalised.argmax()))
        prompt.append(token)
