"""Logs that say which rank speaks, on standard error.

HELIOSTAT_LOG_LEVEL sets the level (INFO where left out). Rank 0, and a process without a rank, log at that
level; the other ranks log warnings and errors only, or everything at DEBUG.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:  # Python 3.10 cannot subscript it
    _StreamHandler = logging.StreamHandler

_ROOT = "heliostat"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def get(name: str) -> logging.Logger:
    """The logger of a module: `log = log.get(__name__)`. Never give it a secret: nothing is masked."""
    _set_up()
    return logging.getLogger(name if name.split(".")[0] == _ROOT else f"{_ROOT}.{name}")


def rank() -> int | None:
    """This process's rank in a distributed run, or None where there is none."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isdigit() else _ray_rank()


def _ray_rank() -> int | None:
    """The rank that Ray Train gave, in a process that has imported Ray Train and runs under it."""
    train = sys.modules.get("ray.train")
    if train is None:
        return None
    try:
        return int(train.get_context().get_world_rank())
    except Exception:  # what Ray raises outside a worker differs from version to version
        return None


class _Handler(_StreamHandler):
    """Writes to whatever standard error is at the time, and knows the rank."""

    def emit(self, record: logging.LogRecord) -> None:
        this = rank()
        if this and record.levelno < logging.WARNING and logging.getLogger(_ROOT).level > logging.DEBUG:
            return
        record.rank = "" if this is None else f" [rank {this}]"
        self.stream = sys.stderr
        super().emit(record)


def _set_up() -> None:
    """Once a process, and without touching the root logger, which belongs to the user."""
    root = logging.getLogger(_ROOT)
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        return
    handler = _Handler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s%(rank)s %(name)s: %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    root.propagate = False
    level = os.environ.get("HELIOSTAT_LOG_LEVEL", "INFO").upper()
    root.setLevel(level if level in _LEVELS else "INFO")
    if level not in _LEVELS:
        root.warning("HELIOSTAT_LOG_LEVEL: %r given; allowed: %s", level, ", ".join(_LEVELS))
