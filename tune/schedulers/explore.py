"""Changes the values of a trial that goes on with the weights of another one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from heliostat.tune.schedulers.base import Axis

REDRAWN = 0.25
"""Probability that a value is drawn anew."""
FACTORS = (0.8, 1.2)
"""For numbers of a range, as in Jaderberg et al. 2017, appendix A."""


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
    if axis.is_ordered:
        return axis.at(inside(axis.place(value) + rng.choice((-1, 1)) / axis.size))
    return value


def inside(place: float) -> float:
    """The nearest place in [0, 1]."""
    return min(max(place, 0.0), 1.0)


def rng_of(seed: int, number: int, share: float) -> random.Random:
    """Random numbers for a decision about a trial: the same whenever it is asked for."""
    return random.Random(f"{seed}:{number}:{share:.6f}")
