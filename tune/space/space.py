"""The configurations that a search can try."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from heliostat.tune.space.conditions import count, holds, in_order
from heliostat.tune.space.domains import Domain
from heliostat.tune.space.values import Range


@dataclass(frozen=True)
class Space:
    """Domains by key, as the spec names them."""

    domains: Mapping[str, Domain]

    def __post_init__(self) -> None:
        """Raises ValueError for conditions that go in a circle, or that can never hold."""
        _ = self.keys

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Each after those that it depends on, else as they are written."""
        return in_order(self.domains)

    @cached_property
    def size(self) -> float:
        """The number of configurations: an integer, or infinity."""
        return count(self.domains, self.keys)

    def sample(self, rng: random.Random, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A configuration drawn from the domains; `fixed` has values that are not drawn."""
        places = {key: rng.random() for key in self.keys}  # drawn for all: a key's value does not hang on the others
        return self.configuration(
            {**{key: self.domains[key].values.at(places[key]) for key in self.keys}, **(fixed or {})}
        )

    def configuration(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `values`, one for each key, whose condition holds."""
        found: dict[str, Any] = {}
        for key in self.keys:
            if holds(self.domains, key, found):
                found[key] = values[key]
        return found

    def part_inside(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `values`, perhaps of another space, has of a configuration of this one; None if a value is outside.

        A search can be resumed with another space: keys may be new (they are missing here) or gone.
        """
        found: dict[str, Any] = {}
        for key in self.keys:
            if key in values and holds(self.domains, key, found):
                try:
                    found[key] = self.domains[key].values.own(values[key])
                except ValueError:
                    return None
        return found

    def is_complete(self, values: Mapping[str, Any]) -> bool:
        """Whether each key whose condition holds has a value."""
        return all(key in values or not holds(self.domains, key, values) for key in self.keys)

    def configurations(self) -> Iterator[dict[str, Any]]:
        """All configurations of a finite space; the last keys change fastest."""
        return self._below(0, {})

    def _below(self, index: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if index == len(self.keys):
            yield values
        elif not holds(self.domains, self.keys[index], values):
            yield from self._below(index + 1, values)
        else:
            domain = self.domains[self.keys[index]].values
            assert not isinstance(domain, Range), "a range has no end of values"
            for value in domain.values:
                yield from self._below(index + 1, {**values, self.keys[index]: value})

    def identity(self, values: Mapping[str, Any]) -> str:
        """A text that equal configurations share, whatever the order of their keys, and no others."""
        inside = self.part_inside(values)
        if inside is None or len(inside) < len(values):  # of another space
            inside = dict(values)
        return json.dumps(inside, sort_keys=True, default=repr)


def check_points(space: Space, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The configurations to try first, with values as their domains have them; keys may be missing.

    Raises ValueError, with the key, for a value outside, for a key that is not searched or whose condition does not
    hold, and for a point that is given twice.
    """
    checked: list[dict[str, Any]] = []
    for index, point in enumerate(points):
        found = _check_point(space, point, f"tune.points.{index}")
        if found in checked:
            raise ValueError(f"tune.points.{index}: {found} is also tune.points.{checked.index(found)}")
        checked.append(found)
    return checked


def _check_point(space: Space, point: Mapping[str, Any], place: str) -> dict[str, Any]:
    for key in point:
        if key not in space.domains:
            near = get_close_matches(key, space.domains, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{place}.{key}: not searched{hint} (searched: {', '.join(space.domains)})")
    found: dict[str, Any] = {}
    for key in (key for key in space.keys if key in point):
        domain = space.domains[key]
        if not holds(space.domains, key, found):
            wanted = ", ".join(f"{parent} in {domain.alternatives(parent)}" for parent in domain.when)
            raise ValueError(f"{place}.{key}: {point[key]!r} given; the point needs {wanted} beside it")
        try:
            found[key] = domain.values.own(point[key])
        except ValueError:
            raise ValueError(f"{place}.{key}: {point[key]!r} given, which is outside of {domain.text}") from None
    return found
