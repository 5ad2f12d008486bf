"""Changes the values of a trial that goes on with the weights of another one."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from typing import Any

from heliostat.tune.schedulers.base import Axis, Perturb
from heliostat.tune.space.space import Space
from heliostat.tune.space.values import Range

REDRAWN = 0.25
"""Probability that a value is drawn anew."""
FACTORS = (0.8, 1.2)
"""For numbers of a range, as in Jaderberg et al. 2017, appendix A."""


def axes_of(space: Space, keys: Collection[str]) -> dict[str, Axis]:
    """The axes of those keys of the space that are among `keys`, which may change on the same weights."""
    return {key: domain.values for key, domain in space.domains.items() if key in keys}


def perturb_in(space: Space, keys: Collection[str]) -> Perturb:
    """Changes the values of `keys`, and draws or drops those whose condition then holds or does not."""
    axes = axes_of(space, keys)
    return lambda values, rng: space.sample(rng, fixed=perturbed(values, rng, axes))


def is_ordered(axis: Axis) -> bool:
    """Whether neighbours are alike, as numbers are."""
    return isinstance(axis, Range) or axis.is_ordered


def perturbed(values: Mapping[str, Any], rng: random.Random, axes: Mapping[str, Axis]) -> dict[str, Any]:
    """`values` with a new one for each key of `axes`: drawn anew, or a neighbour.

    A number of a range is multiplied by one of FACTORS, and kept inside; of ordered values it is the next or the one
    before; values without order are kept unless they are drawn anew.
    """
    return {key: _perturbed(value, rng, axes[key]) if key in axes else value for key, value in values.items()}


def _perturbed(value: Any, rng: random.Random, axis: Axis) -> Any:
    if rng.random() < REDRAWN:
        return axis.at(rng.random())
    if math.isinf(axis.size):
        return axis.at(inside(axis.place(value * rng.choice(FACTORS))))
    if is_ordered(axis):
        return axis.at(inside(axis.place(value) + rng.choice((-1, 1)) / axis.size))
    return value


def inside(place: float) -> float:
    """The nearest place in [0, 1]."""
    return min(max(place, 0.0), 1.0)


def rng_of(seed: int, number: int, share: float) -> random.Random:
    """Random numbers for a decision about a trial: the same whenever it is asked for."""
    return random.Random(f"{seed}:{number}:{share:.6f}")
