"""Which keys of a space are set, given others: `when` of each domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from heliostat.tune.space.domains import Domain
from heliostat.tune.space.values import same

Domains = Mapping[str, Domain]


def holds(domains: Domains, key: str, values: Mapping[str, Any]) -> bool:
    """Whether `key` is set where the keys that it depends on have `values`; unset ones hold nothing."""
    domain = domains[key]
    return all(
        parent in values and any(same(values[parent], one) for one in domain.alternatives(parent))
        for parent in domain.when
    )


def in_order(domains: Domains) -> tuple[str, ...]:
    """The keys, each after those that it depends on, else as they are written.

    Raises ValueError for a circle, and for a condition on a key that is not searched or never has such a value.
    """
    for key, domain in domains.items():
        for parent in domain.when:
            _check(domains, key, parent)
    done: dict[str, None] = {}
    while len(done) < len(domains):
        ready = (key for key in domains if key not in done and all(parent in done for parent in domains[key].when))
        key = next(ready, "")
        if not key:
            raise ValueError(_circle({one: domain for one, domain in domains.items() if one not in done}))
        done[key] = None
    return tuple(done)


def _check(domains: Domains, key: str, parent: str) -> None:
    place = f"tune.space.{key}.when.{parent}"
    if parent not in domains:
        near = get_close_matches(parent, domains, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{place}: {parent} is not searched{hint} (searched: {', '.join(domains)})")
    values = domains[parent].values
    if math.isinf(values.size):
        raise ValueError(f"{place}: {parent} is a range; a condition needs choice, grid, quniform or randint")
    for value in domains[key].alternatives(parent):
        try:
            values.own(value)
        except ValueError:
            raise ValueError(f"{place}: {value!r} given, which tune.space.{parent} never is") from None


def _circle(left: Domains) -> str:
    path = [next(iter(left))]  # each of these keys waits for another one of them
    while path[-1] not in path[:-1]:
        path.append(next(parent for parent in left[path[-1]].when if parent in left))
    circle = path[path.index(path[-1]) :]
    return f"tune.space.{circle[0]}.when: goes round in a circle: {' -> '.join(circle)}"


def count(domains: Domains, order: tuple[str, ...]) -> float:
    """The number of configurations; infinite if a range is among the keys.

    Only values that a condition names make a difference, so only they are gone through one by one.
    """
    named: dict[str, list[Any]] = {}
    for domain in domains.values():
        for parent in domain.when:
            known = named.setdefault(parent, [])
            known += [one for one in domain.alternatives(parent) if not any(same(one, other) for other in known)]

    def below(index: int, values: dict[str, Any]) -> float:
        if index == len(order):
            return 1
        key = order[index]
        if not holds(domains, key, values):
            return below(index + 1, values)
        apart = named.get(key, [])
        total = sum(below(index + 1, {**values, key: value}) for value in apart)
        others = domains[key].values.size - len(apart)
        return total + (others * below(index + 1, {**values, key: _OTHER}) if others else 0)

    return below(0, {})


_OTHER = object()
"""A value that no condition names."""
