"""Validates and cleans the values of a record: texts, chats and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import is_missing, spelled
from heliostat.train.data.config import DataConfig

TURN = ("role", "content")


def refuse_missing(columns: Sequence[str], data: DataConfig, allowed: str = "drop is") -> None:
    """Raises DataError for the first of the empty `columns` of a record, if `data.missing` is `fail`."""
    if columns and data.missing == "fail":
        raise DataError(f"data.missing: fail given, and column {columns[0]!r} is empty; {allowed} allowed")


def label_text(value: Any, column: str, data: DataConfig) -> str | None:
    """A class as text: 1.0 is `1`, True is `true`; None if it is missing or one of `data.na_values`."""
    try:
        word = spelled(value)
    except TypeError:
        found = f"column {column!r} holds {_kind(value)}"
        raise DataError(f"data.columns.label: {found}; text or a number is needed") from None
    return None if word is None or word in data.na_values else unicode_text(word, column)


def clean_texts(record: Mapping[str, Any], columns: Iterable[str], data: DataConfig) -> dict[str, Any] | None:
    """The `columns` of `record`, cleaned; None for a record that `data.missing` drops.

    A record is dropped, or rejected, if a column other than `data.columns.context` is empty.
    """
    found = {column: clean(record[column], column, data) for column in columns}
    missing = [column for column, value in found.items() if value is None and column != data.columns.context]
    refuse_missing(missing, data)
    return None if missing else found


def clean(value: Any, column: str, data: DataConfig) -> str | list[dict[str, str]] | None:
    """A text, a list of {role, content}, or None if it is missing; raises DataError for any other type."""
    if is_missing(value):
        return None
    if column == data.columns.messages:
        return _messages(value, column)
    if isinstance(value, str):
        return unicode_text(value, column) if value.strip() else None
    keys = [key for key, name in data.columns.model_dump().items() if name == column]
    raise DataError(f"data.columns.{keys[0]}: column {column!r} holds {_kind(value)}; text is needed")


def _messages(value: Any, column: str) -> list[dict[str, str]] | None:
    for turn in value if isinstance(value, list) else [value]:
        texts = [turn.get(key) for key in TURN] if isinstance(turn, dict) else []
        if not (isinstance(value, list) and texts and all(isinstance(text, str) for text in texts)):
            found = f"data.columns.messages: column {column!r} holds {_kind(turn)}"
            raise DataError(f"{found}; a list of {{role, content}} texts is needed")
    return [{key: unicode_text(turn[key], column) for key in TURN} for turn in value] or None


def unicode_text(text: str, column: str) -> str:
    """Returns `text`; raises DataError for lone surrogates, which JSON can express."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"half of a surrogate pair at character {error.start + 1}"
        raise DataError(f"column {column!r} holds {half}, which is no text") from None
    return text


def _kind(value: Any) -> str:
    return f"{type(value).__name__} ({repr(value)[:60]})"
