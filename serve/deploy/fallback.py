"""Around Ray's own proxy, which holds requests while an endpoint has no replica: its answers, in our words.

Ray's proxy gives up a request whose replica is killed; here it is asked again. Its own errors are plain text; clients
get them in the form that every other error has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, send_error

ATTEMPTS = 4
REPLAYED_BYTES = 64 * 1024
"""Of a body that can be sent again."""
_PROXY = "SERVE_PROXY_ACTOR"
_LOST = 500
_REASONS = {
    408: ("timeout", "no answer in time"),
    429: ("rate_limit_exceeded", "no replica is up, and as many requests wait as may (serve.max_queued_requests)"),
    _LOST: ("replica_lost", "the replica that was asked is gone; ask again"),
    503: ("unavailable", "no replica can be started for this endpoint"),
}
"""What Ray's proxy says by itself, by status; its texts have tracebacks in them."""


def middlewares() -> Sequence[Any]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: Ray puts these around its proxies, and around replicas."""
    import ray
    from starlette.middleware import Middleware

    name = ray.get_runtime_context().get_actor_name() or ""
    return [Middleware(FallbackMiddleware)] if name.startswith(_PROXY) else []


class FallbackMiddleware:
    """Asks Ray's proxy again where a replica was lost on the way, and gives its errors the form of ours."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self.app(scope, receive, send)
            return
        request = await _Request.read(receive)
        for _ in range(ATTEMPTS if request.is_whole else 1):
            answer = _Answer(send)
            try:
                await self.app(dict(scope), request.again(), answer)
            except Exception:
                if answer.has_begun:
                    raise
                continue
            if answer.has_begun:
                return
            if answer.refusal and answer.refusal["status"] != _LOST:
                break
        await send_error(send, answer.error())


class _Request:
    """A body that can be read several times, as far as it is kept."""

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self.messages, self.receive = messages, receive
        self.is_whole = bool(messages) and not messages[-1].get("more_body")

    @classmethod
    async def read(cls, receive: Receive) -> _Request:
        """All messages of the body, or the first REPLAYED_BYTES."""
        messages: list[Message] = []
        while sum(len(message.get("body", b"")) for message in messages) <= REPLAYED_BYTES:
            messages.append(await receive())
            if not messages[-1].get("more_body"):
                break
        return cls(messages, receive)

    def again(self) -> Receive:
        """What `receive` would say had nobody asked it yet."""
        left = iter(self.messages)

        async def receive() -> Message:
            return next(left, None) or await self.receive()

        return receive


class _Answer:
    """Passes an answer on, unless it is an error of Ray's own."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message | None = None
        self.refusal: Message | None = None
        """How an error of Ray's own begins."""
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """One message of Ray's proxy; how an answer begins is kept until there is more of it."""
        if message["type"] == "http.response.start":
            self.start, self.refusal = message, message if _is_rays(message) else None
        elif not self.refusal:
            if self.start:
                self.has_begun = True
                await self.send(self.start)
                self.start = None
            await self.send(message)

    def error(self) -> RequestError:
        """The error in our form."""
        status = self.refusal["status"] if self.refusal else _LOST
        code, reason = _REASONS[status]
        retry = dict(self.refusal["headers"]).get(b"retry-after") if self.refusal else None
        return RequestError(status, reason, code=code, headers={"Retry-After": retry.decode()} if retry else {})


def _is_rays(start: Message) -> bool:
    """Errors of our replicas are JSON."""
    kind = dict(start["headers"]).get(b"content-type", b"")
    return start["status"] in _REASONS and kind.startswith(b"text/plain")
