"""JSON objects whose keys all differ. Of a key that is given twice, readers of JSON keep the last without a word."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class RepeatedKeyError(ValueError):
    """A key is given twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key[:60]!r}: given twice in one object")
        self.key = key


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values, for `json.loads(..., object_pairs_hook=distinct)`.

    Raises RepeatedKeyError for the first key that is given twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return found


def refuse_repeated(text: bytes) -> None:
    """Raises RepeatedKeyError where an object in `text`, which is known to be JSON, has a key twice."""
    json.loads(text, object_pairs_hook=distinct)
