"""Turns pydantic's errors into lines for the author of a spec: dotted key, value, what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain(section: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each wrong key, in the order of the spec."""
    found: dict[str, list[str]] = {}
    first: dict[str, ErrorDetails] = {}
    for detail in error.errors():
        path, allowed = locate(section, detail["loc"])
        key = ".".join(path)
        first.setdefault(key, detail)
        found.setdefault(key, []).append(_reason(detail, path, allowed))
    return [_line(key, " or ".join(reasons), first[key]) for key, reasons in found.items()]


def mentions(annotation: Any, kind: type) -> bool:
    """Whether a field with this annotation accepts values of `kind`, or any value."""
    return annotation in (kind, Any) or any(mentions(part, kind) for part in get_args(annotation))


def _line(key: str, reason: str, detail: ErrorDetails) -> str:
    if not key or reason.startswith(key):  # a validator of a whole section names its keys itself
        return reason
    if detail["type"] in ("extra_forbidden", "missing"):
        return f"{key}: {reason}"
    return f"{key}: {_short(detail['input'])} given; {reason}"


def _reason(detail: ErrorDetails, path: list[str], allowed: list[str]) -> str:
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(path[-1], allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key{hint} (allowed: {', '.join(allowed) or 'none'})"
    if detail["type"] == "missing":
        return "missing, a value is needed"
    if detail["type"] in ("model_type", "dict_type"):
        return "a mapping of keys is needed"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return message[:1].lower() + message[1:]


def locate(section: type[BaseModel], place: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The dotted path of `place`, and the keys allowed at its last part.

    Pydantic adds the name of a union's member to the location; it is not a key and is left out.
    """
    annotation: Any = section
    path: list[str] = []
    allowed: list[str] = []
    for part in place:
        annotation = _without_none(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            allowed = list(annotation.model_fields)
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else Any
        elif get_origin(annotation) in (dict, Mapping):
            allowed, annotation = [], get_args(annotation)[1]
        elif get_origin(annotation) in (list, tuple):
            allowed, annotation = [], get_args(annotation)[0]
        else:
            break
        path.append(str(part))
    return path, allowed


def _without_none(annotation: Any) -> Any:
    """Strips `| None` and `Annotated`: `X | None` and `Annotated[X, ...]` give `X`."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    optional = len(kinds) == 1 and len(get_args(annotation)) == 2
    return _without_none(kinds[0]) if optional else annotation


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
