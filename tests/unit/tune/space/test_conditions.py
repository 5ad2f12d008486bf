"""Keys that are set under conditions only."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space


def space(**domains: Mapping[str, Any]) -> Space:
    return Space({key: Domain.model_validate(domain) for key, domain in domains.items()})


CHAINED: dict[str, dict[str, Any]] = {
    "rank": {"choice": [4, 8], "when": {"adapter": ["lora", "dora"]}},
    "alpha": {"randint": [1, 3], "when": {"rank": 8}},
    "adapter": {"choice": ["lora", "dora", None]},
}


def test_a_key_comes_after_those_that_it_depends_on() -> None:
    assert space(**CHAINED).keys == ("adapter", "rank", "alpha")


def test_conditions_hold_in_each_draw_and_chains_end_where_one_does_not() -> None:
    found, rng = space(**CHAINED), random.Random(0)
    drawn = [found.sample(rng) for _ in range(500)]
    for values in drawn:
        assert ("rank" in values) == (values["adapter"] is not None)
        assert ("alpha" in values) == (values.get("rank") == 8)
    assert len({found.identity(values) for values in drawn}) == found.size == 2 * (1 + 3) + 1


def random_space(seed: int) -> Space:
    """Of up to six keys with up to four values, some under conditions on one or two others."""
    rng = random.Random(seed)
    keys = [f"k{number}" for number in range(rng.randint(1, 6))]
    domains: dict[str, dict[str, Any]] = {}
    for key in keys:
        low, high = 0, rng.randint(1, 3)
        kind: dict[str, Any] = {"randint": [low, high]} if rng.random() < 0.5 else {"choice": list(range(high + 1))}
        parents = rng.sample(list(domains), min(len(domains), rng.choice([0, 0, 1, 2])))
        allowed = {parent: rng.choice([0, [1], [0, 1]]) for parent in parents}
        domains[key] = {**kind, "when": allowed}
    shuffled = list(domains.items())
    rng.shuffle(shuffled)
    return space(**dict(shuffled))


@pytest.mark.parametrize("seed", range(40))
def test_the_size_is_that_of_all_configurations_and_draws_are_among_them(seed: int) -> None:
    found = random_space(seed)
    all_of_them = [found.identity(values) for values in found.configurations()]
    assert len(set(all_of_them)) == len(all_of_them) == found.size
    rng = random.Random(seed)
    drawn = [found.sample(rng) for _ in range(50)]
    assert {found.identity(values) for values in drawn} <= set(all_of_them)
    assert all(found.is_complete(values) and found.part_inside(values) == values for values in drawn)


def test_the_size_of_a_large_space_is_counted_and_not_gone_through() -> None:
    keys: dict[str, dict[str, Any]] = {f"k{number}": {"randint": [1, 100_000]} for number in range(8)}
    found = space(**keys, extra={"choice": [1, 2, 3], "when": {"k0": [5, 6]}})
    assert found.size == 100_000**7 * (100_000 - 2 + 2 * 3)


def test_a_range_under_a_condition_makes_a_space_infinite() -> None:
    assert space(a={"choice": [0, 1]}, b={"uniform": [0, 1], "when": {"a": 1}}).size == math.inf


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            r"^tune\.space\.a\.when: goes round in a circle: a -> b -> a$",
        ),
        (
            {
                "z": {"choice": [0, 1]},
                "c": {"choice": [1], "when": {"z": 1, "a": 1}},
                "a": {"choice": [1], "when": {"b": 1}},
                "b": {"choice": [1], "when": {"a": 1}},
            },
            r"circle: a -> b -> a$",
        ),
        ({"a": {"choice": [1], "when": {"a": 1}}}, r"^tune\.space\.a\.when: goes round in a circle: a -> a$"),
        (
            {"momentum": {"uniform": [0, 1], "when": {"optimiser": "sgd"}}, "optimizer": {"choice": ["sgd"]}},
            r"^tune\.space\.momentum\.when\.optimiser: optimiser is not searched; did you mean optimizer\?",
        ),
        (
            {"a": {"choice": ["x", "y"]}, "b": {"choice": [1], "when": {"a": ["x", "z"]}}},
            r"^tune\.space\.b\.when\.a: 'z' given, which tune\.space\.a never is$",
        ),
        (
            {"a": {"uniform": [0, 1]}, "b": {"choice": [1], "when": {"a": 0.5}}},
            r"^tune\.space\.b\.when\.a: a is a range; a condition needs choice, grid, quniform or randint$",
        ),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused(domains: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(**domains)
