"""The n-grams that language models are measured against."""

from __future__ import annotations

import random

import pytest

from tests.benchmarks.ngrams import KneserNey

ROWS = [[0, 1, 2, 3, 0, 1, 2, 0], [4, 1, 2, 3], [0, 4, 4, 1]]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("context", [(), (1,), (1, 2), (0, 1, 2), (9, 9, 1)])
def test_the_probabilities_after_any_context_are_one_together(order: int, context: tuple[int, ...]) -> None:
    grams = KneserNey(ROWS, 10, order)
    assert sum(grams.probability(token, context) for token in range(10)) == pytest.approx(1)
    assert all(grams.probability(token, context) > 0 for token in range(10))


def test_bigrams_are_those_of_the_formula() -> None:
    grams = KneserNey([[0, 1, 0, 1, 0, 2], [3, 1, 0]], 4, 2, 0.5)
    # 1 follows 0 twice and 2 once; as followers of anything, 1 is seen after 0 and 3, 0 after 1, 2 after 0
    unigram = {1: (2 - 0.5) / 4, 0: (1 - 0.5) / 4, 2: (1 - 0.5) / 4, 3: 0.0}
    below = {token: share + 0.5 * 3 / 4 / 4 for token, share in unigram.items()}
    for token, count in {1: 2, 2: 1, 0: 0, 3: 0}.items():
        expected = max(count - 0.5, 0) / 3 + 0.5 * 2 / 3 * below[token]
        assert grams.probability(token, (0,)) == pytest.approx(expected)


def test_what_repeats_is_foreseen_and_what_is_drawn_is_not() -> None:
    repeating = [[1, 2, 3, 4] * 20]
    assert KneserNey(repeating, 10).perplexity(repeating) < 1.2
    draw = random.Random(0)
    drawn = [[draw.randrange(10) for _ in range(2000)] for _ in range(2)]
    assert KneserNey(drawn[:1], 10, 2).perplexity(drawn[1:]) == pytest.approx(10, rel=0.1)
