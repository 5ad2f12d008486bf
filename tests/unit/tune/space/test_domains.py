"""The domains of searched keys: what they draw, what they hold, what is refused."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from heliostat.infra.config.strict import StrictModel, build
from heliostat.infra.errors import ConfigError
from heliostat.tune.space.domains import Domain

DOMAINS: dict[str, dict[str, Any]] = {
    "choice": {"choice": ["a", None, 3, 0.5, True, [1, 2], {"k": 1}]},
    "grid": {"grid": [16, 32, 64]},
    "uniform": {"uniform": [-1, 2]},
    "loguniform": {"loguniform": [1e-5, 1e-1]},
    "quniform": {"quniform": [0.1, 0.5, 0.1]},
    "randint": {"randint": [3, 9]},
    "randint with step": {"randint": [8, 64], "step": 8},
}


def domain(written: object) -> Domain:
    return Domain.model_validate(written)


@pytest.mark.parametrize("written", DOMAINS.values(), ids=list(DOMAINS))
def test_what_is_drawn_is_inside_and_stays_what_it_is_through_json_and_optuna(written: object) -> None:
    values, rng = domain(written).values, random.Random(0)
    for _ in range(200):
        drawn = values.at(rng.random())
        back = json.loads(json.dumps(drawn))
        for found in (values.own(back), values.from_optuna(values.to_optuna(back))):
            assert (found, type(found)) == (drawn, type(drawn))
        distribution = values.distribution()
        parameter = values.to_optuna(drawn)
        assert distribution._contains(distribution.to_internal_repr(parameter))


@pytest.mark.parametrize("written", DOMAINS.values(), ids=list(DOMAINS))
def test_a_domain_stays_what_it_is_through_json(written: dict[str, Any]) -> None:
    one = domain({**written, "when": {"a": None, "b": [1, 2]}})
    again = Domain.model_validate_json(one.model_dump_json())
    assert again == one
    assert domain(one.model_dump(mode="json")).values.at(0.4) == one.values.at(0.4)
    assert (again.alternatives("a"), again.alternatives("b")) == ([None], [1, 2])


@pytest.mark.parametrize("written", DOMAINS.values(), ids=list(DOMAINS))
def test_a_place_leads_back_to_its_value_and_the_ends_are_inside(written: object) -> None:
    values = domain(written).values
    for place in (0.0, 0.1, 0.37, 0.5, 0.99, 1.0):
        value = values.at(place)
        again = values.at(values.place(value))
        assert again == (pytest.approx(value) if math.isinf(values.size) else value)


@pytest.mark.parametrize(
    ("written", "all_values"),
    [
        ({"choice": ["a", None, 3]}, ["a", None, 3]),
        ({"grid": [16, 32]}, [16, 32]),
        ({"quniform": [0.1, 0.5, 0.1]}, [0.1, 0.2, 0.3, 0.4, 0.5]),  # 0.1 + 0.2 would be 0.30000000000000004
        ({"randint": [3, 5]}, [3, 4, 5]),
        ({"randint": [8, 32], "step": 8}, [8, 16, 24, 32]),
    ],
)
def test_a_finite_domain_has_its_values_each_drawn_as_often(written: object, all_values: list[Any]) -> None:
    values, rng = domain(written).values, random.Random(1)
    assert values.size == len(all_values)
    drawn = Counter(json.dumps(values.at(rng.random())) for _ in range(2000))
    assert set(drawn) == {json.dumps(value) for value in all_values}
    assert min(drawn.values()) > 0.7 * 2000 / len(all_values)


def test_a_range_is_infinite_and_a_logarithmic_one_draws_each_order_of_magnitude_as_often() -> None:
    values, rng = domain({"loguniform": [1e-4, 1e-1]}).values, random.Random(2)
    assert values.size == math.inf
    orders = Counter(math.floor(math.log10(values.at(rng.random()))) for _ in range(3000))
    assert all(800 < orders[order] < 1200 for order in (-4, -3, -2))


@pytest.mark.parametrize(
    ("written", "outside"),
    [
        ({"choice": [1, "a"]}, [True, "1", 2, None, [1]]),
        ({"choice": [True]}, [1, 1.0]),
        ({"uniform": [0, 1]}, [-0.01, 1.01, True, "0.5", None, math.nan]),
        ({"loguniform": [0.1, 1]}, [0.05, 0, -1, math.inf]),
        ({"quniform": [0, 1, 0.25]}, [0.3, 1.25, -0.25, True, "0.25", math.nan]),
        ({"randint": [0, 8], "step": 2}, [3, 2.5, 10, True, "2", math.inf]),
    ],
)
def test_what_is_outside_is_not_taken(written: object, outside: list[Any]) -> None:
    for value in outside:
        with pytest.raises(ValueError):  # noqa: PT011 - the searcher and the checks put it into words
            domain(written).values.own(value)


def test_a_number_is_taken_in_the_type_of_its_domain() -> None:
    assert repr(domain({"uniform": [0, 1]}).values.own(1)) == "1.0"
    assert repr(domain({"randint": [0, 8]}).values.own(4.0)) == "4"
    assert repr(domain({"choice": [16, 32]}).values.own(16.0)) == "16"
    assert domain({"quniform": [0, 1, 0.1]}).values.own(0.1 + 0.2) == 0.3


def test_numbers_in_a_grid_have_an_order_for_optuna_and_others_have_none() -> None:
    kinds = [type(domain({"grid": grid}).values.distribution()).__name__ for grid in ([1, 2, 4], [4, 2, 1], [1, 4, 2])]
    assert kinds == ["IntDistribution", "IntDistribution", "CategoricalDistribution"]
    assert type(domain({"grid": ["a", "b"]}).values.distribution()).__name__ == "CategoricalDistribution"
    assert type(domain({"choice": [1, 2, 4]}).values.distribution()).__name__ == "CategoricalDistribution"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "exactly one of choice, grid, uniform, loguniform, quniform, randint"),
        ({"choice": [1], "uniform": [1, 2]}, "exactly one"),
        ({"choice": []}, "choice is empty"),
        ({"grid": []}, "grid is empty"),
        ({"choice": [1, 2, 1.0]}, "1.0 is given twice"),
        ({"choice": [math.nan]}, "finite numbers"),
        ({"uniform": [2, 1]}, "low < high"),
        ({"uniform": [1, 1]}, "low < high"),
        ({"loguniform": [0, 1]}, "0 < low < high"),
        ({"loguniform": [-1, 1]}, "0 < low < high"),
        ({"loguniform": [2, 1]}, "0 < low < high"),
        ({"uniform": ["a", 1]}, "valid number"),
        ({"uniform": [True, 2]}, "valid number"),
        ({"uniform": [1]}, "required"),
        ({"uniform": [1, 2, 3]}, "at most 2"),
        ({"randint": [1.5, 3]}, "valid integer"),
        ({"randint": [3, 3]}, "low < high"),
        ({"randint": [1, 8], "step": 2}, "step 2 does not lead from 1 to 8; 7 is reached"),
        ({"randint": [1, 8], "step": 0}, "greater than 0"),
        ({"randint": [0, 10**12]}, "at most 1,000,000,000 values"),
        ({"quniform": [0, 1, 0.3]}, "step 0.3 does not lead from 0.0 to 1.0"),
        ({"quniform": [0, 1, 0]}, "step above 0"),
        ({"quniform": [1, 0, 0.1]}, "low < high"),
        ({"uniform": [0, 1], "step": 1}, "step belongs to randint"),
        ({"choice": [1], "when": {"a": []}}, "when.a is empty"),
        ({"normal": [0, 1]}, "Extra inputs"),
    ],
)
def test_a_bad_domain_is_refused(written: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        domain(written)


class Tune(StrictModel):
    """A section with a space."""

    space: dict[str, Domain]


class Spec(StrictModel):
    """A spec with that section."""

    tune: Tune


def test_a_refusal_is_one_line_with_the_key() -> None:
    with pytest.raises(ConfigError) as refused:
        build(Spec, {"tune": {"space": {"train.adapter.rank": {"randint": [8, 4]}}}})
    message = str(refused.value)
    assert message.startswith("tune.space.train.adapter.rank: {'randint': [8, 4]} given; ")
    assert "needs low < high" in message
    assert "\n" not in message
