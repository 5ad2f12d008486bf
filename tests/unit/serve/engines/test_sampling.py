from __future__ import annotations

from collections import Counter

import pytest
import torch

from heliostat.serve.engines.base import Sampling
from heliostat.serve.engines.sampling import draw, generator_of, next_tokens

CPU = torch.device("cpu")


def test_greedy_rows_take_the_likeliest_and_leave_the_others_alone() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0], [9.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    samplings = [Sampling(1, temperature=0), Sampling(1, temperature=0), Sampling(1, temperature=1, seed=0)]
    generators = [generator_of(sampling, CPU) for sampling in samplings]
    assert generators[:2] == [None, None]
    assert next_tokens(logits, samplings, generators) == [1, 0, 2]


def test_a_seed_repeats_the_same_draws() -> None:
    logits = torch.zeros(1, 1000)

    def draws(seed: int | None) -> list[int]:
        sampling = Sampling(1, seed=seed)
        generator = generator_of(sampling, CPU)
        return [next_tokens(logits, [sampling], [generator])[0] for _ in range(8)]

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
    sampling = Sampling(1, temperature=0.01, seed=0)
    generator = generator_of(sampling, CPU)
    logits = torch.tensor([[1.0, 1.2, 0.0]])
    assert {next_tokens(logits, [sampling], [generator])[0] for _ in range(50)} == {1}
