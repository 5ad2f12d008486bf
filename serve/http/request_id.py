"""The id of a request: taken from the header `x-request-id` or made, returned, and in all lines of the log about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from uuid import uuid4

from heliostat.infra.log_fields import about
from heliostat.serve.errors import App, Message, Receive, Scope, Send

HEADER = b"x-request-id"
IDENTIFIED = "heliostat.request_id"
"""Key in a request's scope: its id."""
_ALLOWED = re.compile(rb"[!-~]{1,128}")


class RequestIdMiddleware:
    """Gives each request an id, for what it wraps, its response and the log.

    An id that was sent counts if it is one header of up to 128 visible ASCII characters; otherwise a new one is made,
    and what was sent goes nowhere. Whatever set the header of the response before is replaced.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or IDENTIFIED in scope:  # one further out has done it
            await self.app(scope, receive, send)
            return
        name = scope[IDENTIFIED] = _identified(scope)
        header = (HEADER, name.encode())

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_others(message.get("headers", ())), header]
            await send(message)

        with about(request_id=name):
            await self.app(scope, receive, with_id)


def _identified(scope: Scope) -> str:
    """The id of a request, which is then its only one."""
    given = [value for name, value in scope["headers"] if name == HEADER]
    if len(given) == 1 and _ALLOWED.fullmatch(given[0]):
        return str(given[0].decode())
    made = uuid4().hex
    scope["headers"] = [*_others(scope["headers"]), (HEADER, made.encode())]
    return made


def _others(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [one for one in headers if one[0].lower() != HEADER]
