"""The tasks, one per file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliostat.train.tasks.base import Task


def get(name: str) -> Task:
    """The task with this name in a spec, such as `text-classification`."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    return module.TASK
