"""The schedulers by their names in `tune.scheduler`, with what each does and when to take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat.tune.schedulers.asha import Asha
from heliostat.tune.schedulers.base import Scheduler, Settings
from heliostat.tune.schedulers.hyperband import HyperBand
from heliostat.tune.schedulers.median import Median
from heliostat.tune.schedulers.none import Full
from heliostat.tune.schedulers.pb2 import Pb2
from heliostat.tune.schedulers.pbt import Pbt


@dataclass(frozen=True)
class Kind:
    """A scheduler that can be named."""

    build: Callable[[Settings], Scheduler]
    does: str
    take_it: str
    """When to."""
    changes_values: bool = False
    """Whether trials go on with other values, on weights of others: the result is a schedule."""


KINDS: dict[str, Kind] = {
    "asha": Kind(
        Asha,
        "pauses every trial at each rung and promotes the best 1/eta of those that came there",
        "as a rule: most of the budget goes to the best, whatever the number of gangs",
    ),
    "hyperband": Kind(
        HyperBand,
        "runs ASHA in brackets, of which some pause early and some late or never",
        "when early scores may mislead, as with small learning rates or long warm-ups",
    ),
    "median": Kind(
        Median,
        "holds trials that are worse than the median of the others' averages at the same share",
        "when few trials shall be cut, and only those that are clearly behind",
    ),
    "pbt": Kind(
        Pbt,
        "trains all trials side by side; at each validation the lowest quarter takes over weights of the best quarter, "
        "and values near theirs",
        "when values should change on the way, with eight trials or more: the result is a schedule",
        changes_values=True,
    ),
    "pb2": Kind(
        Pb2,
        "as pbt, with numbers proposed by a Gaussian process instead of at random",
        "as pbt, when there are only four to eight trials",
        changes_values=True,
    ),
    "none": Kind(
        Full,
        "trains every trial in full",
        "for a grid, for few trials, and where every curve is wanted to its end",
    ),
}


def build_scheduler(name: str, settings: Settings) -> Scheduler:
    """The scheduler of a name in `KINDS`."""
    return KINDS[name].build(settings)
