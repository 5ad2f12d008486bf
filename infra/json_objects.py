"""Parses JSON objects and refuses repeated keys, of which JSON parsers silently keep the last."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class RepeatedKeyError(ValueError):
    """A key occurs twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key[:60]!r}: given twice in one object")
        self.key = key


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, for `json.loads(..., object_pairs_hook=distinct)`.

    Raises RepeatedKeyError for the first repeated key.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return found


def refuse_repeated(text: bytes) -> None:
    """Raises RepeatedKeyError if an object in `text`, which must be valid JSON, repeats a key."""
    json.loads(text, object_pairs_hook=distinct)
