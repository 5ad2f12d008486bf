"""Requests to a server that may be away for a moment: while it is renewed, or has too much to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from heliostat.cluster.deploy.api import RefusedError, UnansweredError

PAUSE_SECONDS = 2.0
T = TypeVar("T")


def persistently(ask: Callable[[], T], until: float) -> T:
    """The answer, asked for again until `until` on the monotonic clock; then raises what was raised last."""
    while True:
        try:
            return ask()
        except (RefusedError, UnansweredError) as error:
            if time.monotonic() >= until or (isinstance(error, RefusedError) and not error.is_transient):
                raise
        time.sleep(PAUSE_SECONDS)
