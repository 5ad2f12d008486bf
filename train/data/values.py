"""Validates and cleans the values of a record: texts, chats and classes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import is_missing, spelled
from heliostat.train.data.config import DataConfig

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""The roles that chat templates know; what `assistant` says is learned."""
CALLS = ("tool_calls", "function_call")
WEIGHTS = ("weight", "train")
"""Keys of a turn that say whether it is learned: 0 or false for no, 1 or true for yes."""


def refuse_missing(columns: Sequence[str], data: DataConfig, allowed: str = "drop is") -> None:
    """Raises DataError for the first of the empty `columns` of a record, if `data.missing` is `fail`."""
    if columns and data.missing == "fail":
        raise DataError(f"data.missing: fail given, and column {columns[0]!r} is empty; {allowed} allowed")


def label_text(value: Any, column: str, data: DataConfig) -> str | None:
    """A class as text: 1.0 and `1.0` are `1`, True and `True` are `true`; None if missing or in `data.na_values`."""
    try:
        word = spelled(value)
    except TypeError:
        found = f"column {column!r} holds {_kind(value)}"
        raise DataError(f"data.columns.label: {found}; text or a number is needed") from None
    return None if word is None or word in data.na_values else unicode_text(word, column)


def clean_texts(record: Mapping[str, Any], columns: Iterable[str], data: DataConfig) -> dict[str, Any] | None:
    """The `columns` of `record`, cleaned; None for a record that `data.missing` drops.

    A record is dropped, or rejected, if a column is empty, except `data.columns.context` and `data.columns.tools`.
    """
    found = {column: clean(record[column], column, data) for column in columns}
    optional = (data.columns.context, data.columns.tools)
    missing = [column for column, value in found.items() if value is None and column not in optional]
    refuse_missing(missing, data)
    return None if missing else found


def clean(value: Any, column: str, data: DataConfig) -> str | list[dict[str, Any]] | None:
    """A text, a list of turns or tools, or None if it is missing; raises DataError for any other type."""
    if is_missing(value):
        return None
    if column == data.columns.messages:
        return _messages(value, column, data)
    if column == data.columns.tools:
        return _tools(value, column)
    if isinstance(value, str):
        return unicode_text(value, column) if value.strip() else None
    keys = [key for key, name in data.columns.model_dump().items() if name == column]
    raise DataError(f"data.columns.{keys[0]}: column {column!r} holds {_kind(value)}; text is needed")


def _messages(value: Any, column: str, data: DataConfig) -> list[dict[str, Any]] | None:
    """The turns of a chat; None if there are none, or if an answer that is learned is empty."""
    for turn in value if isinstance(value, list) else [value]:
        if not (isinstance(value, list) and isinstance(turn, dict)):
            raise _no_turn(turn, column)
    turns = [_turn(turn, column) for turn in value]
    for number, turn in enumerate(turns, 1):
        if is_learned(turn) and not turn["content"].strip() and not any(key in turn for key in CALLS):
            if data.missing == "fail":
                found = f"turn {number} of column {column!r} is an empty answer"
                raise DataError(f"data.missing: fail given, and {found}; drop is allowed, or weight: 0 in the turn")
            return None
    return turns or None


def is_learned(turn: Mapping[str, Any]) -> bool:
    """Whether a clean turn is an answer that the loss is taken on."""
    return bool(turn["role"] == "assistant" and turn.get("weight", 1))


def _turn(turn: dict[str, Any], column: str) -> dict[str, Any]:
    """The keys of a turn that have a value; `weight` is 0 for an answer that is not learned, and else left out."""
    found = {key: value for key, value in turn.items() if value is not None and value != []}
    role, content = found.get("role"), found.get("content", "" if any(key in found for key in CALLS) else None)
    if not isinstance(role, str) or not isinstance(content, str):
        raise _no_turn(turn, column)
    if role not in ROLES:
        allowed = f"{', '.join(ROLES[:-1])} and {ROLES[-1]} are allowed"
        raise DataError(f"data.columns.messages: column {column!r} holds the role {role[:60]!r}; {allowed}")
    more = {key: value for key, value in found.items() if key not in ("role", "content", *WEIGHTS)}
    weight = {"weight": 0} if not _weight(found, role) and role == "assistant" else {}
    unicode_text(json.dumps(more, ensure_ascii=False, default=str), column)
    return {"role": role, "content": unicode_text(content, column), **_with_parsed_calls(more), **weight}


def _weight(turn: Mapping[str, Any], role: str) -> bool:
    """Whether a turn is to be learned; raises DataError for other weights than 0 and 1."""
    given = {key: turn[key] for key in WEIGHTS if key in turn}
    for key, value in given.items():
        if value not in (0, 1):
            raise DataError(f"data.columns.messages: {key}: {repr(value)[:60]} given in a turn; 0 and 1 are allowed")
        if value and role != "assistant":
            raise DataError(
                f"data.columns.messages: {key}: {value} given in a turn of {role}; only answers are learned"
            )
    if len(set(given.values())) > 1:
        raise DataError("data.columns.messages: weight and train given in a turn, which contradict each other")
    return all(given.values())


def _with_parsed_calls(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with each call's `arguments` as an object, as chat templates expect; OpenAI writes them as JSON text."""
    calls = turn.get("tool_calls")
    if calls is None:
        return turn
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise DataError(f"data.columns.messages: tool_calls: {_kind(calls)} given; a list of calls is needed")
    return {**turn, "tool_calls": [_parsed_call(call) for call in calls]}


def _parsed_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, str):
        return call
    parsed = _json(arguments)
    if not isinstance(parsed, dict):
        raise DataError(
            f"data.columns.messages: tool_calls: arguments {arguments[:60]!r} given; a JSON object is needed"
        )
    return {**call, "function": {**function, "arguments": parsed}}


def _tools(value: Any, column: str) -> list[dict[str, Any]] | None:
    """Definitions of tools, from a list or its JSON text."""
    found = (_json(value) if value.strip() else []) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise DataError(f"data.columns.tools: column {column!r} holds {_kind(value)}; a list of objects is needed")
    return found or None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _no_turn(value: Any, column: str) -> DataError:
    found = f"data.columns.messages: column {column!r} holds {_kind(value)}"
    return DataError(f"{found}; a list of {{role, content}} texts is needed")


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
