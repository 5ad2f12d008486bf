"""How each request ended: counted, and told to the log."""

from __future__ import annotations

import logging
import time
from typing import Any

from heliostat.infra import log
from heliostat.serve.access.keys import ApiKey
from heliostat.serve.errors import ERROR_CODE, App, Message, Receive, Scope, Send
from heliostat.serve.metrics import ADAPTER, ServeMetrics

CLIENT_LEFT = 499
"""Status of a request whose client disconnected before the response was complete."""
UNCOUNTED_PATHS = frozenset({"/health"})
"""Of requests that are neither counted nor traced."""
_PATH_CHARACTERS = 200
_log = log.get(__name__)


class WatchedSend:
    """Sends a response on, and knows how its request ended."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = CLIENT_LEFT
        self.is_complete = False
        """Whether the last byte was sent."""
        self.has_failed = False
        """Set where the application raises."""

    async def __call__(self, message: Message) -> None:
        """Sends one message."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        await self._send(message)
        self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    @property
    def status(self) -> int:
        """That of a complete response; 500 where the application failed, CLIENT_LEFT where it was cut."""
        return 500 if self.has_failed else self._status if self.is_complete else CLIENT_LEFT


class AnswerFailedError(Exception):
    """An answer that failed half-way: the server closes the connection."""


class OutcomeMiddleware:
    """Records each request's status and time to last byte, and adds the header `x-model-version`.

    Logs errors that nothing inside handles, without their texts, and in JSON a line `request` for each request. An
    error goes no further once its response is complete. Otherwise AnswerFailedError does, in place of an error whose
    text, which others would log, may quote the request.
    """

    def __init__(self, app: App, metrics: ServeMetrics) -> None:
        self.app = app
        self.metrics = metrics
        self.tells = log.writes_json() and _log.isEnabledFor(logging.INFO)
        labels = metrics.labels
        self.version = f"{labels['model']}@{labels['version']}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in UNCOUNTED_PATHS:
            await self.app(scope, receive, send)
            return
        started, watched = time.perf_counter(), WatchedSend(send)

        async def with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                version = (b"x-model-version", (scope.get(ADAPTER) or self.version).encode("latin-1"))
                message["headers"] = [*message.get("headers", ()), version]
            await watched(message)

        try:
            await self.app(scope, receive, with_version)
        except Exception:
            watched.has_failed = True
            _log.exception("a request failed")
            if not watched.is_complete:
                raise AnswerFailedError("an answer failed; the log has the place") from None
        finally:
            status, seconds = watched.status, time.perf_counter() - started
            self.metrics.request(status, seconds, scope.get(ADAPTER, ""), scope.get(ERROR_CODE, ""))
            if self.tells:
                _tell(scope, path, status, seconds)


def _tell(scope: Scope, path: str, status: int, seconds: float) -> None:
    """Logs how a request ended, with the name of its key; long paths are cut, and none has its query."""
    key: ApiKey | None = scope.get("heliostat.key")
    fields: dict[str, Any] = {
        "method": scope["method"],
        "path": path[:_PATH_CHARACTERS],
        "status": status,
        "seconds": round(seconds, 6),
        "key": key.name if key else None,
        "adapter": scope.get(ADAPTER),
    }
    _log.info("request", extra={"fields": fields})
