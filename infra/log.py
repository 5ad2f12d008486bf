"""Logging to standard error, with the rank in each line.

HELIOSTAT_LOG_LEVEL sets the level (default INFO). Rank 0, and a process without a rank, log at that level; the other
ranks log only warnings and errors, or everything at DEBUG.
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


class _Handler(_StreamHandler):
    """Writes to the current `sys.stderr`, with the rank."""

    def emit(self, record: logging.LogRecord) -> None:
        this = rank()
        if this and record.levelno < logging.WARNING and logging.getLogger(_ROOT).level > logging.DEBUG:
            return
        record.rank = "" if this is None else f" [rank {this}]"
        self.stream = sys.stderr
        super().emit(record)


def _set_up() -> None:
    """Runs once per process; leaves the root logger, which belongs to the user, unchanged."""
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
