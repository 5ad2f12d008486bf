"""Logging to standard error.

HELIOSTAT_LOG           `text` (default), or `json`: an object a line, and one for each request that a replica answers
HELIOSTAT_LOG_LEVEL     the level (default INFO)
HELIOSTAT_LOG_CONTENT   1 shows the texts of errors in lines of requests, which may quote what a user sent (default 0)

Rank 0, and a process without a rank, log at the level; the other ranks log only warnings and errors, or everything at
DEBUG. `log_fields.py` has what lines are about, `log_format.py` what they look like.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from heliostat.infra.log_format import Json, Words

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:  # Python 3.10 cannot subscript it
    _StreamHandler = logging.StreamHandler

_ROOT = "heliostat"
_ALLOWED = {
    "HELIOSTAT_LOG": ("text", "json"),
    "HELIOSTAT_LOG_LEVEL": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    "HELIOSTAT_LOG_CONTENT": ("0", "1"),
}
_DEFAULTS = {"HELIOSTAT_LOG": "text", "HELIOSTAT_LOG_LEVEL": "INFO", "HELIOSTAT_LOG_CONTENT": "0"}
VARIABLES = tuple(_ALLOWED)


def get(name: str) -> logging.Logger:
    """The logger of a module: `log = log.get(__name__)`. Never log a secret: nothing is masked."""
    _set_up()
    return logging.getLogger(name if name.split(".")[0] == _ROOT else f"{_ROOT}.{name}")


def rank() -> int | None:
    """This process's rank in a distributed run; None outside one."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isdigit() else _ray_rank()


def _ray_rank() -> int | None:
    """The rank given by Ray Train; None if this process has not imported it or is not one of its workers."""
    train = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        return int(train.get_context().get_world_rank())
    except Exception:  # outside a worker, the exception differs between Ray versions
        return None


def writes_json() -> bool:
    """Whether lines are JSON objects."""
    _set_up()
    return any(isinstance(one.formatter, Json) for one in logging.getLogger(_ROOT).handlers)


def variables() -> dict[str, str]:
    """The variables above that are set here, for processes that do not inherit this environment."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


class _Handler(_StreamHandler):
    """Writes to the current `sys.stderr`, with the rank."""

    def emit(self, record: logging.LogRecord) -> None:
        this = rank()
        if this and record.levelno < logging.WARNING and logging.getLogger(_ROOT).level > logging.DEBUG:
            return
        record.rank = this
        self.stream = sys.stderr
        super().emit(record)


def _set_up() -> None:
    """Runs once per process; leaves the root logger, which belongs to the user, unchanged."""
    root = logging.getLogger(_ROOT)
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        return
    found = {name: _setting(name) for name in VARIABLES}
    kind, level, content = (known or _DEFAULTS[name] for name, (_, known) in found.items())
    handler = _Handler(sys.stderr)
    handler.setFormatter((Json if kind == "json" else Words)(shows_content=content == "1"))
    root.addHandler(handler)
    root.propagate = False
    root.setLevel(level)
    for name, (given, known) in found.items():
        if given and not known:
            root.warning("%s: %r given; allowed: %s", name, given, ", ".join(_ALLOWED[name]))


def _setting(name: str) -> tuple[str, str | None]:
    """What a variable is set to, and the allowed value that this is; None if it is not set, or not allowed."""
    given = os.environ.get(name, "").strip()
    return given, next((one for one in _ALLOWED[name] if one.lower() == given.lower()), None)
