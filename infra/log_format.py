"""Lines of the log: in words, or as JSON objects. Neither raises, whatever is logged."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import datetime, timezone
from typing import Any

from heliostat.infra.log_fields import fields, is_of_a_request


class Words(logging.Formatter):
    """`12:30:00 WARNING [rank 1] [request 4fd0] heliostat.serve.app: message`, with a traceback below it.

    A traceback in a line of requests, or one with `extra={"private": True}`, leaves out the texts of errors, which may
    quote what a user sent, unless `shows_content`.
    """

    def __init__(self, shows_content: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.shows_content = shows_content

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        about, rank = fields(), getattr(record, "rank", None)
        marks = "" if rank is None else f" [rank {rank}]"
        if request := about.get("request_id") or ", ".join(about.get("request_ids", ())):
            marks += f" [request {request}]"
        time = self.formatTime(record, self.datefmt)
        line = f"{time} {record.levelname}{marks} {record.name}: {_message(record)}"
        trace = _trace(record, self.shows_content)
        return f"{line}\n{trace}" if trace else line


class Json(logging.Formatter):
    """An object a line: `time` (UTC), `level`, `event`, `logger`, `rank` and fields of `log_fields`, where they apply.

    `extra={"fields": {…}}` adds more of them. A traceback is in `exception`, as in `Words`.
    """

    def __init__(self, shows_content: bool = False) -> None:
        super().__init__()
        self.shows_content = shows_content

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII, which no encoding of the stream can break."""
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "event": _message(record),
            "logger": record.name,
            "rank": getattr(record, "rank", None),
            **fields(),
            **getattr(record, "fields", {}),
            "exception": _trace(record, self.shows_content),
        }
        return _dumped({name: value for name, value in entry.items() if value is not None})


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit the message
        return _shown(record.msg)


def _dumped(entry: dict[str, Any]) -> str:
    try:
        return json.dumps(entry, default=_shown, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # a key that is no string, no finite number, a value in itself
        return json.dumps({name: value if isinstance(value, str) else _shown(value) for name, value in entry.items()})


def _shown(value: object) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _trace(record: logging.LogRecord, shows_content: bool) -> str | None:
    """The traceback of the record's error, without the texts of errors where they may be a user's; None without one."""
    if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    try:
        if shows_content or not (is_of_a_request() or getattr(record, "private", False)):
            return "".join(traceback.format_exception(error)).rstrip("\n")
        return _places(error)
    except Exception:  # of an error that cannot be shown
        return type(error).__qualname__


def _places(error: BaseException) -> str:
    """The traceback of an error, below those of its causes: places and types, no texts."""
    parts: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        stack = "".join(traceback.format_tb(link.__traceback__))
        head = "Traceback (most recent call last):\n" if stack else ""
        parts.append(f"{head}{stack}{type(link).__module__}.{type(link).__qualname__}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "\n".join(reversed(parts))
