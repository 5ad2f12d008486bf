"""Orders points of several objectives, less being better in each: non-dominated fronts, and crowding within a front.

Deb, Pratap, Agarwal, Meyarivan: "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002. Fronts are found
by Zhang, Tian, Cheng, Jin: "An Efficient Approach to Nondominated Sorting for Evolutionary Multiobjective
Optimization", 2015, with binary search, which gives the same fronts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

Point = tuple[float, ...]
"""A value for each objective; infinite in all of them where there is none."""


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def order(points: Sequence[Point]) -> list[int]:
    """The indices of `points`, best first: by front, then the less crowded, then in the order given.

    With one objective this is its order. Infinite points are last.
    """
    if points and len(points[0]) == 1:
        return sorted(range(len(points)), key=points.__getitem__)  # which keeps the order of equals
    return list(_order(tuple(points)))


@lru_cache(maxsize=16)  # a result changes one rung of several
def _order(points: tuple[Point, ...]) -> tuple[int, ...]:
    found: list[int] = []
    for front in fronts(points):
        distance = dict(zip(front, crowding([points[index] for index in front]), strict=True))
        found += sorted(front, key=lambda index: (-distance[index], index))
    return tuple(found)


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """The indices of `points` by front: nothing dominates those of the first, only the first those of the second."""
    found: list[list[int]] = []
    for index in sorted(range(len(points)), key=lambda one: (points[one], one)):
        low, high = 0, len(found)
        while low < high:  # who is dominated in a front is so in each one before it
            middle = (low + high) // 2
            # Of two objectives the second falls along a front: the newest member is the best in it.
            rivals = found[middle][-1:] if len(points[index]) == 2 else found[middle]
            if any(dominates(points[other], points[index]) for other in rivals):
                low = middle + 1
            else:
                high = middle
        if low == len(found):
            found.append([])
        found[low].append(index)
    return [sorted(front) for front in found]


def crowding(points: Sequence[Point]) -> list[float]:
    """The crowding distance of each point of a front: infinite at the ends of an objective."""
    distances = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        ranked = sorted(range(len(points)), key=lambda index: (points[index][axis], index))
        low, high = points[ranked[0]][axis], points[ranked[-1]][axis]
        distances[ranked[0]] = distances[ranked[-1]] = math.inf
        if low < high < math.inf:
            for before, index, after in zip(ranked, ranked[1:], ranked[2:], strict=False):
                distances[index] += (points[after][axis] - points[before][axis]) / (high - low)
    return distances
