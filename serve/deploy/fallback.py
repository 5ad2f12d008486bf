"""A middleware for Ray Serve's own proxy, which queues requests while an endpoint has no replica.

Ray's proxy gives up a request when its replica is killed; the middleware retries it. Ray's own errors are plain text;
clients get them with our usual JSON error body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from heliostat.cluster.haproxy.rules import LOST_STATUS, REPLICA_UP_HEADER
from heliostat.cluster.haproxy.settings import REPLAYED_BYTES
from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, send_error
from heliostat.serve.http.request_id import RequestIdMiddleware

ATTEMPTS = 2
"""How often a body is sent: a request that ends its replica must not end all of them."""
PROBES = 4
"""How often a replica is looked for before a body that was sent already is sent once more."""
_PROXY = "SERVE_PROXY_ACTOR"
_LOST = 500
"""Ray's status for a replica that was lost; HAProxy's, which clients see, is LOST_STATUS."""
_REASONS = {
    408: ("timeout", "no answer in time"),
    429: ("rate_limit_exceeded", "no replica is up, and as many requests wait as may (serve.max_queued_requests)"),
    _LOST: ("replica_lost", "the replica that was asked is gone; ask again"),
    503: ("unavailable", "no replica can be started for this endpoint"),
}
"""Errors of Ray's proxy by status, in our own words: Ray's texts contain tracebacks."""


def middlewares() -> Sequence[Any]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH. Ray calls it for proxies and replicas.

    Around both, as the outermost, request ids: Ray decodes any, and adds them to responses as they came.
    """
    import ray
    from starlette.middleware import Middleware

    name = ray.get_runtime_context().get_actor_name() or ""
    ids = Middleware(RequestIdMiddleware)
    return [Middleware(FallbackMiddleware), ids] if name.startswith(_PROXY) else [ids]


class FallbackMiddleware:
    """Retries when a replica was lost before the response began, and rewrites the errors of Ray's proxy."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self.app(scope, receive, send)
            return
        request = await _Request.read(receive)
        attempts = ATTEMPTS if request.is_whole else 1
        if _was_sent(scope):
            attempts = 1
            error = await self._find_replica(scope)
            if error:
                await send_error(scope, send, error)
                return
        for _ in range(attempts):
            answer = _Answer(send)
            await self._ask(scope, request.again(), answer)
            if answer.has_begun:
                return
            if not answer.is_lost:
                break
        await send_error(scope, send, answer.error())

    async def _ask(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self.app(dict(scope), receive, answer)
        except Exception:
            if answer.has_begun:
                raise

    async def _find_replica(self, scope: Scope) -> RequestError | None:
        """Returns once a replica answers anything; else the error. Ray learns by asking which replicas are gone."""
        for _ in range(PROBES):
            answer = _Answer(_nowhere)
            with _empty_body() as receive:
                await self._ask({**scope, "method": "GET"}, receive, answer)
            if answer.has_begun:
                return None
            if not answer.is_lost:
                break
        return answer.error()


def _was_sent(scope: Scope) -> bool:
    """Whether a replica was up when HAProxy got the request, so that it may have been sent to one already."""
    return any(name == REPLICA_UP_HEADER.encode() for name, _ in scope["headers"])


@contextmanager
def _empty_body() -> Iterator[Receive]:
    """A `receive` of a request without a body, whose client is there until the block ends."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])
    ended = asyncio.Event()

    async def receive() -> Message:
        if message := next(messages, None):
            return message
        await ended.wait()
        return {"type": "http.disconnect"}

    yield receive
    ended.set()


async def _nowhere(_: Message) -> None:
    return None


class _Request:
    """A request body that can be replayed if it is no longer than REPLAYED_BYTES."""

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self.messages, self.receive = messages, receive
        self.is_whole = bool(messages) and not messages[-1].get("more_body")

    @classmethod
    async def read(cls, receive: Receive) -> _Request:
        """Reads all messages of the body, or up to REPLAYED_BYTES of it."""
        messages: list[Message] = []
        while sum(len(message.get("body", b"")) for message in messages) <= REPLAYED_BYTES:
            messages.append(await receive())
            if not messages[-1].get("more_body"):
                break
        return cls(messages, receive)

    def again(self) -> Receive:
        """A `receive` that replays the messages read so far, then continues with the rest."""
        left = iter(self.messages)

        async def receive() -> Message:
            return next(left, None) or await self.receive()

        return receive


class _Answer:
    """A `send` that passes on the response unless it is an error of Ray's proxy."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message | None = None
        self.refusal: Message | None = None
        """Start message of such an error; None for any other response."""
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """Handles one message; delays the start message until the body begins."""
        if message["type"] == "http.response.start":
            self.start, self.refusal = message, message if _is_rays(message) else None
        elif not self.refusal:
            if self.start:
                self.has_begun = True
                await self.send(self.start)
                self.start = None
            await self.send(message)

    @property
    def is_lost(self) -> bool:
        """Whether the replica ended before it answered."""
        return not self.has_begun and (self.refusal is None or self.refusal["status"] == _LOST)

    def error(self) -> RequestError:
        """Ray's error with our usual error body."""
        status = self.refusal["status"] if self.refusal else _LOST
        code, reason = _REASONS[status]
        status = LOST_STATUS if status == _LOST else status
        retry = dict(self.refusal["headers"]).get(b"retry-after") if self.refusal else None
        return RequestError(status, reason, code=code, headers={"Retry-After": retry.decode()} if retry else {})


def _is_rays(start: Message) -> bool:
    """Whether a response is an error of Ray's proxy: those are plain text, errors of our replicas are JSON."""
    kind = dict(start["headers"]).get(b"content-type", b"")
    return start["status"] in _REASONS and kind.startswith(b"text/plain")
