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
    """transformers without progress bars and without what two parts of it would import that are not used here.

    scikit-learn, which assisted generation needs (0.6 CPU seconds), and SciPy, which losses of object detection do.
    """
    with without("sklearn"), without("scipy"):
        import transformers

        transformers.utils.is_sklearn_available()  # both remember their answer
        transformers.utils.is_scipy_available()
    transformers.logging.disable_progress_bar()
    return transformers
