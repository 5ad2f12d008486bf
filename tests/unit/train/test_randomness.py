"""The random numbers of training follow from seed, step, pass and rank."""

from __future__ import annotations

from itertools import product

import torch

from heliostat.train.randomness import seeded


def drawn(seed: int, step: int, rank: int) -> list[tuple[float, ...]]:
    """Numbers of the two passes of a step."""
    return [tuple(torch.rand(4).tolist()) for _ in seeded("ab", seed, step, rank)]


def test_seeds_steps_passes_and_ranks_have_streams_of_their_own() -> None:
    cases = list(product(range(3), repeat=3))
    assert len({numbers for case in cases for numbers in drawn(*case)}) == 2 * len(cases)


def test_a_stream_does_not_depend_on_what_was_drawn_before() -> None:
    torch.manual_seed(1)
    first = drawn(5, 6, 1)
    torch.manual_seed(2)
    torch.rand(7)
    assert drawn(5, 6, 1) == first


def test_each_pass_is_given_in_its_own_stream() -> None:
    found = [(one, torch.initial_seed()) for one in seeded("ab", 0, 0, 0)]
    assert [one for one, _ in found] == ["a", "b"]
    assert found[0][1] != found[1][1]
