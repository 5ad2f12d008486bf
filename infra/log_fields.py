"""What a line of the log is about: its run, model and request.

Fields in use: `run`, `model`, `version`, `request_id`, `trace_id`; `request_ids` where a line is about several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Any]
_NONE: Fields = MappingProxyType({})
_process: Fields = _NONE
_current: ContextVar[Fields] = ContextVar("heliostat_log_fields", default=_NONE)


def identify(**fields: str) -> None:
    """Sets what all lines of this process are about from now on, in all of its threads."""
    global _process
    _process = fields


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Sets what the lines inside the block are about, in this thread or task and the tasks that it starts."""
    token = _current.set({**_current.get(), **fields})
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def about_requests(ids: Iterable[str | None]) -> Iterator[None]:
    """For work that a thread does for requests: the lines inside the block carry the ids of all of them."""
    known = [one for one in dict.fromkeys(ids) if one is not None]
    if not known:
        yield
        return
    with about(**({"request_id": known[0]} if len(known) == 1 else {"request_ids": known})):
        yield


def request_id() -> str | None:
    """The id of the request that is being answered; None outside one."""
    found = _current.get().get("request_id")
    return None if found is None else str(found)


def fields() -> dict[str, Any]:
    """All that a line written now is about."""
    return {**_process, **_current.get()}


def is_of_a_request() -> bool:
    """Whether a line written now belongs to requests, so that the text of an error may be a user's."""
    return not _current.get().keys().isdisjoint(("request_id", "request_ids"))
