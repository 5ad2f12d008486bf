"""Imports large libraries without parts that are not used here, each of which takes a second of a process's start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without(module: str) -> Iterator[None]:
    """Makes imports of `module` fail inside the block, unless it is already loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own mark for "this import fails"
    try:
        yield
    finally:
        del sys.modules[module]


def import_transformers() -> ModuleType:
    """transformers without progress bars and scikit-learn, which assisted generation needs (0.6 CPU seconds)."""
    import transformers

    with without("sklearn"):
        transformers.utils.is_sklearn_available()  # remembers its answer
    transformers.logging.disable_progress_bar()
    return transformers
