"""What a scheduler is, and what it is built from."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from heliostat.tune.space.values import Listed, Range
from heliostat.tune.trials import Begin, Continue, Objective, Trial

Axis = Listed | Range
"""The values of a key that may change on the same weights."""

Perturb = Callable[[Mapping[str, Any], random.Random], Mapping[str, Any]]
"""Values near the given ones, or drawn anew, that a trial can go on with on the same weights."""


class Scheduler(Protocol):
    """Decides what is trained next, from the trials alone: no state, no clock, no random numbers but by the seed."""

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """The next decision, or None until more results are known.

        `trials` is what is known, by number; `may_begin` says whether a new one may be. It is asked until it says None
        with nothing in training, which is the end of the search.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """What schedulers are built from; each takes what it needs."""

    objectives: tuple[Objective, ...]
    grace: float = 0.25
    """Share of a trial before the first decision about it, and between its validations; in (0, 1]."""
    eta: float = 2.0
    """Of this many trials at a rung one goes on; above 1."""
    seed: int = 0
    perturb: Perturb | None = None
    """What PBT and PB2 change values with; see `explore.perturb_in`."""
    axes: Mapping[str, Axis] = field(default_factory=dict)
    """By key, what PB2 models; see `explore.axes_of`. Values without an order are left to `perturb`."""

    def __post_init__(self) -> None:
        assert self.objectives
        assert 0 < self.grace <= 1
        assert self.eta > 1
