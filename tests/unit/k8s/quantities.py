"""Amounts of resources, as Kubernetes writes them.

Source: k8s.io/apimachinery/pkg/api/resource, "canonical form": no precision is lost, no fractional digits are emitted,
the exponent (or suffix) is as large as possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")


def canonical(given: Any) -> str:
    """What the server makes of a quantity; ValueError for what is none."""
    found = re.fullmatch(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)([KMGTPE]i|[numkMGTPE]?)", str(given))
    if not found:
        raise ValueError(f"{given!r} is no quantity")
    number, suffix = Fraction(found[1]), found[2]
    if suffix.endswith("i") and abs(value := number * 1024 ** BINARY.index(suffix)) >= 1024:
        return _largest(value, BINARY, 1024, 0)
    value = number * (1024 ** BINARY.index(suffix) if suffix.endswith("i") else _thousands(suffix))
    return _largest(value, DECIMAL, 1000, 3)


def _thousands(suffix: str) -> Fraction:
    return Fraction(1000) ** (DECIMAL.index(suffix) - 3)


def _largest(value: Fraction, suffixes: tuple[str, ...], base: int, one: int) -> str:
    """The value with the largest suffix that leaves no fraction."""
    if value == 0:
        return "0"
    for place in reversed(range(len(suffixes))):
        amount = value / Fraction(base) ** (place - one)
        if amount.denominator == 1:
            return f"{amount.numerator}{suffixes[place]}"
    raise ValueError(f"{value} is finer than Kubernetes counts")


def quantities(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All amounts at any depth: of requests and limits, and of volumes in memory or on disk; each with its path."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from quantities(item, f"{path}.{place}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("requests", "limits"):
                yield from ((f"{path}.{key}.{name}", amount) for name, amount in item.items())
            elif key == "sizeLimit":
                yield f"{path}.{key}", item
            else:
                yield from quantities(item, f"{path}.{key}")
