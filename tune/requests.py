"""What is asked of a search that may run elsewhere: to stop a trial, or to clone it.

runs/<model>/<search>/requests/<time>-<random>.json   taken up by the driver, which then deletes it
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.infra import log
from heliostat.infra.storage.base import Store

_log = log.get(__name__)


@dataclass(frozen=True)
class Request:
    """One request; `kind` is `stop` or `clone`."""

    kind: str
    trial: int
    values: Mapping[str, Any] = field(default_factory=dict)
    """All values of the clone."""
    key: str = ""
    """In storage."""


def ask(store: Store, prefix: str, request: Request) -> None:
    """Leaves a request for the driver of the search."""
    key = f"{prefix}/requests/{time.time_ns():020d}-{secrets.token_hex(3)}.json"
    body = {"kind": request.kind, "trial": request.trial, "values": dict(request.values)}
    store.write_bytes(key, json.dumps(body).encode())


def asked(store: Store, prefix: str) -> list[Request]:
    """The requests that nobody has taken up, oldest first; what is none is deleted."""
    return [found for entry in store.list(f"{prefix}/requests") if (found := _read(store, entry.key))]


def _read(store: Store, key: str) -> Request | None:
    try:
        return Request(**json.loads(store.read_bytes(key)), key=key)
    except (ValueError, TypeError) as error:
        _log.warning("%s/%s is no request: %s; it is deleted", store.url, key, error)
        store.delete(key)
        return None
