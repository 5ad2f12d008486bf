"""What the log says of each request: that it failed, and with HELIOSTAT_LOG=json how each one ended."""

from __future__ import annotations

import logging
import time
from typing import Any

from heliostat.infra import log
from heliostat.serve.access.keys import ApiKey
from heliostat.serve.errors import App, Message, Receive, Scope, Send
from heliostat.serve.metrics import ADAPTER, CLIENT_LEFT, UNCOUNTED_PATHS

_PATH_CHARACTERS = 200
_log = log.get(__name__)


class AnswerFailedError(Exception):
    """An answer that failed half-way: the server closes the connection."""


class RequestLogMiddleware:
    """Logs errors that nothing inside handles, without their texts, and in JSON a line `request` for each request.

    An error goes no further once its response is complete. Otherwise AnswerFailedError does, in place of an error
    whose text, which others would log, may quote the request.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.tells = log.writes_json() and _log.isEnabledFor(logging.INFO)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in UNCOUNTED_PATHS:
            await self.app(scope, receive, send)
            return
        started, status, complete = time.perf_counter(), CLIENT_LEFT, False

        async def watch(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        failed = False
        try:
            await self.app(scope, receive, watch)
        except Exception:
            failed = True
            _log.exception("a request failed")
            if not complete:
                raise AnswerFailedError("an answer failed; the log has the place") from None
        finally:
            if self.tells:
                ended = 500 if failed else status if complete else CLIENT_LEFT
                _tell(scope, path, ended, time.perf_counter() - started)


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
