"""Receives request bodies: each whole, within its size and time, before the request takes a place in the replica."""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.requests import ClientDisconnect, Request

from heliostat.serve.access.keys import holder_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.errors import App, Message, Receive, RequestError, Scope, Send, send_error
from heliostat.serve.http.limits import read_body


class BodyMiddleware:
    """Passes POST requests on once their body is here, so that one that stalls takes no place from others.

    Answers 413 for a body that is too long, 408 for one that takes too long, and 429 to a key that sends more bodies
    at once than the replica has places: each takes memory until it is here or its time is over.
    """

    def __init__(self, app: App, config: ServeConfig) -> None:
        self.app = app
        self.config = config
        self.arriving: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except RequestError as error:
            await send_error(scope, send, error)
            return
        except ClientDisconnect:
            return
        await self.app(scope, replayed(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body. Clients without a key cannot be told apart, so the number of their bodies has no limit here."""
        holder, most = holder_of(scope), self.config.max_ongoing_requests
        if holder and self.arriving[holder] >= most:
            raise _too_many(most)
        self.arriving[holder] += 1
        try:
            return await receive_body(scope, receive, self.config)
        finally:
            self.arriving.subtract([holder])
            if not self.arriving[holder]:
                del self.arriving[holder]


async def receive_body(scope: Scope, receive: Receive, config: ServeConfig) -> bytes:
    """The whole body.

    Raises RequestError 413 if it is too long, 408 if it is not here in time, and ClientDisconnect if the client left.
    """
    seconds = config.body_timeout_seconds
    try:
        return await asyncio.wait_for(read_body(Request(scope, receive), config.max_body_bytes), seconds)
    except asyncio.TimeoutError:
        raise RequestError(
            408,
            f"body: not here within {seconds:g} s (serve.body_timeout_seconds)",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once; after it, what comes from the client, which can only be its leaving."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _too_many(most: int) -> RequestError:
    return RequestError(
        429,
        f"{most} requests with this key are sending their bodies already, which is the limit; try again in a second",
        code="rate_limit_exceeded",
        headers={"Retry-After": "1", "Connection": "close"},
    )
