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
        started, status, complete, failed = time.perf_counter(), CLIENT_LEFT, False, False

        async def watch(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                version = (b"x-model-version", (scope.get(ADAPTER) or self.version).encode("latin-1"))
                message["headers"] = [*message.get("headers", ()), version]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, watch)
        except Exception:
            failed = True
            _log.exception("a request failed")
            if not complete:
                raise AnswerFailedError("an answer failed; the log has the place") from None
        finally:
            ended = 500 if failed else status if complete else CLIENT_LEFT
            seconds = time.perf_counter() - started
            self.metrics.request(ended, seconds, scope.get(ADAPTER, ""), scope.get(ERROR_CODE, ""))
            if self.tells:
                _tell(scope, path, ended, seconds)


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
