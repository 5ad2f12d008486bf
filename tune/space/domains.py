"""The domain of a searched key, as a spec writes it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, Strict, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.tune.space.values import Listed, Range, Steps, is_number, same

KINDS = ("choice", "grid", "uniform", "loguniform", "quniform", "randint")
MOST_VALUES = 10**9
"""Of one key; with more, a range says the same."""
Number = Annotated[float, Strict()]
Integer = Annotated[int, Strict()]


class Domain(StrictModel):
    """The values that a key can be set to; exactly one of the keys besides `step` and `when` must be given."""

    choice: list[Any] | None = None
    """Values without an order."""
    grid: list[Any] | None = None
    """Values in their order, such as [16, 32, 64]: searchers take neighbours for alike where they are numbers."""
    uniform: tuple[Number, Number] | None = None
    """Any number from the first to the second."""
    loguniform: tuple[Number, Number] | None = None
    """Any number from the first to the second, each order of magnitude as often as another."""
    quniform: tuple[Number, Number, Number] | None = None
    """The numbers from the first to the second in steps of the third."""
    randint: tuple[Integer, Integer] | None = None
    """The integers from the first to the second, both included, in steps of `step`."""
    step: Annotated[int, Strict(), Field(gt=0)] | None = None
    """Between the integers of `randint`; 1 if omitted."""
    when: dict[str, Any] = {}
    """Other searched keys and the value, or the list of values, with which this key is set at all."""

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)}")
        if self.step is not None and self.randint is None:
            raise ValueError("step belongs to randint; quniform has its step as third number")
        for key, allowed in self.when.items():
            if allowed == []:
                raise ValueError(f"when.{key} is empty; give a value or a list of values")
        _ = self.values
        return self

    @cached_property
    def values(self) -> Listed | Range:
        """What can be drawn; raises ValueError for an empty or inverted range and for values that are no JSON."""
        if self.uniform:
            return Range(*_ends("uniform", *self.uniform))
        if self.loguniform:
            return Range(*_ends("loguniform", *self.loguniform), is_log=True)
        if self.quniform:
            return Listed(_steps(*self.quniform), is_ordered=True)
        if self.randint:
            return Listed(_integers(*self.randint, self.step or 1), is_ordered=True)
        if self.choice is not None:
            return Listed(_distinct("choice", self.choice), is_ordered=False)
        grid = _distinct("grid", self.grid or [])
        return Listed(grid, _is_monotonic(grid))

    @property
    def text(self) -> str:
        """As a spec writes it, conditions apart, such as `uniform: [0, 1]`."""
        kind = next(kind for kind in KINDS if getattr(self, kind) is not None)
        step = f", step: {self.step}" if self.step else ""
        return f"{kind}: {json.dumps(getattr(self, kind))}{step}"

    def alternatives(self, key: str) -> list[Any]:
        """The values of `key` with which this one is set."""
        allowed = self.when[key]
        return allowed if isinstance(allowed, list) else [allowed]


def _ends(kind: str, low: float, high: float) -> tuple[float, float]:
    if not low < high or (kind == "loguniform" and low <= 0):
        needed = "0 < low < high" if kind == "loguniform" else "low < high"
        raise ValueError(f"{kind} {[low, high]} given; needs {needed}")
    return low, high


def _steps(low: float, high: float, step: float) -> Sequence[float]:
    _ends("quniform", low, high)
    if step <= 0:
        raise ValueError(f"quniform {[low, high, step]} given; needs a step above 0")
    _few_enough("quniform", low, high, step)
    return Steps(low, high, step)


def _integers(low: int, high: int, step: int) -> Sequence[int]:
    _ends("randint", low, high)
    if (high - low) % step:
        raise ValueError(f"step {step} does not lead from {low} to {high}; {high - (high - low) % step} is reached")
    _few_enough("randint", low, high, step)
    return range(low, high + 1, step)


def _few_enough(kind: str, low: float, high: float, step: float) -> None:
    if high - low >= MOST_VALUES * step:
        raise ValueError(f"{kind} {[low, high]} in steps of {step} given; at most {MOST_VALUES:,} values are allowed")


def _distinct(kind: str, values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError(f"{kind} is empty; give at least one value")
    for index, value in enumerate(values):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"{kind}: {value!r} given; values are text, finite numbers, true, false, null, lists"
            ) from None
        if any(same(value, one) for one in values[:index]):
            raise ValueError(f"{kind}: {value!r} is given twice")
    return values


def _is_monotonic(values: list[Any]) -> bool:
    if not all(is_number(value) and math.isfinite(value) for value in values):
        return False
    return values in (sorted(values), sorted(values, reverse=True))
