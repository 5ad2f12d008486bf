"""Non-dominated fronts and crowding."""

from __future__ import annotations

import math
import random

import pytest

from heliostat.tune.dominance import Point, crowding, dominates, fronts, order


def by_definition(points: list[Point]) -> list[list[int]]:
    left, found = set(range(len(points))), []
    while left:
        front = sorted(k for k in left if not any(dominates(points[other], points[k]) for other in left))
        found.append(front)
        left -= set(front)
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("values", [4, 1000])
def test_fronts_are_those_of_the_definition(objectives: int, values: int) -> None:
    draw = random.Random(objectives)
    for size in (0, 1, 2, 30, 60):
        points = [tuple(float(draw.randrange(values)) for _ in range(objectives)) for _ in range(size)]
        points += [(math.inf,) * objectives] * (size // 10)
        assert fronts(points) == by_definition(points)


def test_the_distance_is_the_side_of_the_box_between_the_neighbours() -> None:
    points = [(0.0, 10.0), (1.0, 5.0), (4.0, 4.0), (10.0, 0.0)]
    assert crowding(points) == pytest.approx([math.inf, 0.4 + 0.6, 0.9 + 0.5, math.inf])
    assert crowding([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)])[1] == 0
    assert crowding([]) == []


def test_the_less_crowded_of_a_front_come_first_then_the_earlier() -> None:
    points = [(0.0, 10.0), (1.0, 5.0), (4.0, 4.0), (10.0, 0.0), (11.0, 1.0), (math.inf, math.inf)]
    assert order(points) == [0, 3, 2, 1, 4, 5]
    assert order([(2.0,), (1.0,), (2.0,), (math.inf,), (0.5,)]) == [4, 1, 0, 2, 3]
