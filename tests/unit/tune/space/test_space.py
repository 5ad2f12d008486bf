"""A space: equal configurations, other spaces' configurations, the order of a grid, points to try first."""

from __future__ import annotations

import random
from typing import Any

import pytest

from heliostat.tune.space.domains import Domain
from heliostat.tune.space.space import Space, check_points

DOMAINS: dict[str, dict[str, Any]] = {
    "optimizer": {"choice": ["sgd", "adam"]},
    "momentum": {"quniform": [0, 0.9, 0.1], "when": {"optimizer": "sgd"}},
    "learning_rate": {"loguniform": [1e-5, 1e-1]},
}


def space(domains: dict[str, dict[str, Any]]) -> Space:
    return Space({key: Domain.model_validate(domain) for key, domain in domains.items()})


def test_equal_configurations_have_one_identity_whatever_their_order_and_types() -> None:
    found = space(DOMAINS)
    one = found.identity({"optimizer": "sgd", "momentum": 0.3, "learning_rate": 0.01})
    assert one == found.identity({"learning_rate": 1e-2, "momentum": 0.1 + 0.2, "optimizer": "sgd"})
    assert one != found.identity({"optimizer": "sgd", "momentum": 0.4, "learning_rate": 0.01})
    assert one != found.identity({"optimizer": "adam", "learning_rate": 0.01})
    choice = space({"a": {"choice": [1, True, "1", None, [1]]}})
    assert len({choice.identity({"a": value}) for value in (1, True, "1", None, [1])}) == 5


def test_a_configuration_of_another_space_is_told_apart_by_its_other_keys_and_values() -> None:
    found = space({"a": {"choice": [1, 2]}})
    identities = [found.identity(values) for values in ({"a": 1}, {"a": 1, "gone": 5}, {"a": 7}, {"gone": 5}, {})]
    assert len(set(identities)) == 5


def test_of_another_spaces_configuration_the_part_inside_counts_and_none_if_a_value_is_outside() -> None:
    found = space(DOMAINS)
    assert found.part_inside({"optimizer": "adam", "gone": 1}) == {"optimizer": "adam"}
    assert not found.is_complete({"optimizer": "adam"})
    assert found.is_complete({"optimizer": "adam", "learning_rate": 0.01})
    assert found.part_inside({"optimizer": "adam", "momentum": 0.5}) == {"optimizer": "adam"}  # its condition is new
    assert found.part_inside({"optimizer": "adam", "learning_rate": 1.0}) is None
    assert found.part_inside({"optimizer": "adamw", "learning_rate": 0.01}) is None


def test_a_grid_is_gone_through_in_the_order_of_its_keys() -> None:
    found = space({"a": {"grid": [1, 2]}, "b": {"choice": ["x", "y"], "when": {"a": 2}}, "c": {"randint": [5, 6]}})
    assert list(found.configurations()) == [
        {"a": 1, "c": 5},
        {"a": 1, "c": 6},
        {"a": 2, "b": "x", "c": 5},
        {"a": 2, "b": "x", "c": 6},
        {"a": 2, "b": "y", "c": 5},
        {"a": 2, "b": "y", "c": 6},
    ]


def test_what_is_fixed_is_not_drawn_and_conditions_follow_it() -> None:
    found, rng = space(DOMAINS), random.Random(0)
    drawn = [found.sample(rng, {"optimizer": "sgd", "momentum": 0.5}) for _ in range(20)]
    assert {(values["optimizer"], values["momentum"]) for values in drawn} == {("sgd", 0.5)}
    assert len({values["learning_rate"] for values in drawn}) == 20
    assert all("momentum" not in found.sample(rng, {"optimizer": "adam"}) for _ in range(20))


def test_points_are_taken_in_the_types_of_their_domains_and_may_lack_keys() -> None:
    points: list[dict[str, Any]] = [{"learning_rate": 0.1}, {"momentum": 0.1 + 0.2, "optimizer": "sgd"}, {}]
    assert check_points(space(DOMAINS), points) == [{"learning_rate": 0.1}, {"optimizer": "sgd", "momentum": 0.3}, {}]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [{}, {"learning_rat": 1}],
            r"^tune\.points\.1\.learning_rat: not searched; did you mean learning_rate\? \(searched: optimizer, mom",
        ),
        (
            [{"learning_rate": 1}],
            r"^tune\.points\.0\.learning_rate: 1 given, which is outside of loguniform: \[1e-05, 0\.1\]$",
        ),
        ([{"optimizer": "lion"}], r"'lion' given, which is outside of choice: \[\"sgd\", \"adam\"\]$"),
        (
            [{"optimizer": "adam", "momentum": 0.5}],
            r"^tune\.points\.0\.momentum: 0\.5 given; the point needs optimizer in \['sgd'\] beside it$",
        ),
        ([{"momentum": 0.5}], r"needs optimizer in \['sgd'\] beside it$"),
        ([{"optimizer": "sgd"}, {"optimizer": "sgd"}], r"^tune\.points\.1: .* is also tune\.points\.0$"),
    ],
)
def test_a_point_that_is_no_part_of_a_configuration_is_refused(points: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_points(space(DOMAINS), points)
