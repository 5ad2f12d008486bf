"""The outermost middleware: sends the head of an answer together with its first chunk, and has streams guarded.

An answer has begun once any byte of it is sent: from then on HAProxy cannot ask another replica. uvicorn sends the head
by itself, and a replica that is killed right after it takes the answer with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from heliostat.serve.errors import App, Message, Receive, Scope, Send
from heliostat.serve.http.stream_guard import StreamGuard


class FirstChunkMiddleware:
    """The outermost layer of a replica."""

    def __init__(self, app: App, guard: StreamGuard) -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; those whose connection nobody knows pass as they are."""
        cycle = cycle_of(receive)
        if scope["type"] != "http" or cycle is None:
            await self.app(scope, receive, send)
            return
        cycle.transport = transport = CoalescingTransport(cycle.transport)
        stream: Stream | None = None

        async def watched(message: Message) -> None:
            nonlocal stream
            if message["type"] == "http.response.start":
                transport.hold()
                if is_stream(message):
                    stream = Stream(self.guard, transport.get_extra_info("socket"))
                await send(message)
                return
            if stream and not message.get("more_body"):
                stream.end()
            await send(message)
            if transport.flush() and stream:
                stream.begin()

        try:
            await self.app(scope, receive, watched)
        finally:
            if stream:
                stream.end()


class CoalescingTransport:
    """A transport that keeps what is written from `hold` to `flush`, to write it at once."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def hold(self) -> None:
        """From now on."""
        self._held = []

    def flush(self) -> bool:
        """Whether anything was held."""
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))
        return bool(held)

    def write(self, data: bytes) -> None:
        """As the transport's."""
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def close(self) -> None:
        """As the transport's, after what is held."""
        self.flush()
        self._transport.close()


class Stream:
    """A stream of events, whose connection the guard holds from a moment after its first piece until its last."""

    def __init__(self, guard: StreamGuard, connection: Any) -> None:
        self.guard, self.connection = guard, connection
        self.number: int | None = None
        self.has_ended = False

    def begin(self) -> None:
        """In the next iteration of the event loop: an error event before the head is sent would be garbage."""
        asyncio.get_running_loop().call_soon(self._hold)

    def _hold(self) -> None:
        if not self.has_ended and self.connection.fileno() >= 0:
            self.number = self.guard.hold(self.connection)

    def end(self) -> None:
        """Nothing happens the second time."""
        self.has_ended = True
        if self.number is not None:
            self.guard.release(self.number)
            self.number = None


def cycle_of(receive: Any) -> Any:
    """uvicorn's own object for a request, under what Ray puts around it; None where it is another server's."""
    cycle = getattr(getattr(receive, "_receive", receive), "__self__", None)
    return cycle if hasattr(cycle, "transport") else None


def is_stream(start: Message) -> bool:
    """Whether an answer that begins so is a stream of events, in chunks."""
    headers = dict(start.get("headers", ()))
    return headers.get(b"content-type", b"").startswith(b"text/event-stream") and b"content-length" not in headers
