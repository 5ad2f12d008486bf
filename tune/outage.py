"""What a search can do without while its storage does not answer."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from heliostat.infra import log
from heliostat.infra.errors import StorageError

_log = log.get(__name__)


async def if_storage_answers(work: Coroutine[Any, Any, None]) -> None:
    """Does the work; if it fails for the storage, says so and returns."""
    try:
        await work
    except StorageError as error:
        _log.warning("%s; the search goes on and tries again", error)
