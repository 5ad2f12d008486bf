"""What a searched key can be set to: a list of values, or a range of numbers.

A value has a place in [0, 1): `at` and `place` go from one to the other, so that each searcher draws from all alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, overload


def is_number(value: Any) -> bool:
    """Whether `value` is an integer or a float; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether two values of a spec are the same: 16 is 16.0, and true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


class Steps(Sequence[float]):
    """The numbers low, low + step, … high, each as exact as it is written: 0.3 and not 0.1 + 2 · 0.1."""

    def __init__(self, low: float, high: float, step: float) -> None:
        """Raises ValueError if no whole number of steps lies between `low` and `high`."""
        self._low, self._step = Decimal(str(low)), Decimal(str(step))
        steps = (Decimal(str(high)) - self._low) / self._step
        if steps != steps.to_integral_value():
            raise ValueError(f"step {step} does not lead from {low} to {high}")
        self._size = int(steps) + 1

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(index)
        return float(self._low + index * self._step)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The place of `value`, which may differ from it by rounding; raises ValueError if there is none."""
        step = float(self._step)
        near = round((value - float(self._low)) / step)
        if 0 <= near < self._size and math.isclose(self[near], value, rel_tol=1e-9, abs_tol=1e-6 * step):
            return near
        raise ValueError(value)


@dataclass(frozen=True)
class Listed:
    """Finitely many values."""

    values: Sequence[Any]
    is_ordered: bool
    """Whether neighbours are alike, as numbers are."""

    @property
    def size(self) -> float:
        """The number of values."""
        return len(self.values)

    def index(self, value: Any) -> int:
        """The position of `value`; raises ValueError if it is none of them."""
        if not isinstance(self.values, list):  # numbers that follow from their ends: there may be millions
            if not is_number(value) or not math.isfinite(value):
                raise ValueError(value)
            return self.values.index(value)
        for index, one in enumerate(self.values):
            if same(one, value):
                return index
        raise ValueError(value)

    def own(self, value: Any) -> Any:
        """`value` as it is listed; raises ValueError if it is not."""
        return self.values[self.index(value)]

    def at(self, place: float) -> Any:
        """The value at `place` in [0, 1]; all have equal parts of it."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def place(self, value: Any) -> float:
        """The middle of the part that `value` has of [0, 1]."""
        return (self.index(value) + 0.5) / len(self.values)

    def distribution(self) -> Any:
        """Optuna's: of positions, since it holds no lists and would turn 1 and true into one another."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        last = len(self.values) - 1
        return IntDistribution(0, last) if self.is_ordered else CategoricalDistribution(range(last + 1))

    def to_optuna(self, value: Any) -> int:
        """The position that `distribution` knows `value` by."""
        return self.index(value)

    def from_optuna(self, parameter: Any) -> Any:
        """The value at a position."""
        return self.values[int(parameter)]


@dataclass(frozen=True)
class Range:
    """The floats from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool = False
    """Whether each order of magnitude is drawn as often as another."""

    @property
    def size(self) -> float:
        """Infinite."""
        return math.inf

    def own(self, value: Any) -> float:
        """`value` as a float; raises ValueError if it is outside."""
        if not is_number(value) or not self.low <= value <= self.high:
            raise ValueError(value)
        return float(value)

    def at(self, place: float) -> float:
        """The value at `place` in [0, 1]."""
        low, high = self._ends()
        value = low + place * (high - low)
        return min(max(math.exp(value) if self.is_log else value, self.low), self.high)

    def place(self, value: Any) -> float:
        """Where `value` is between the ends."""
        low, high = self._ends()
        return ((math.log(value) if self.is_log else value) - low) / (high - low)

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)

    def distribution(self) -> Any:
        """Optuna's."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.is_log)

    def to_optuna(self, value: Any) -> float:
        """The parameter that stands for `value`."""
        return self.own(value)

    def from_optuna(self, parameter: Any) -> float:
        """The value of a parameter."""
        return min(max(float(parameter), self.low), self.high)
