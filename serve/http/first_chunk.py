"""The outermost middleware: sends response headers together with the first chunk, and registers streams with the guard.

Once any byte of a response is sent, HAProxy can no longer retry the request on another replica. uvicorn sends the
headers on their own, so that a replica that is killed right after them would lose the response.
"""

from __future__ import annotations

import asyncio
from typing import Any

from heliostat.serve.errors import App, Message, Receive, Scope, Send
from heliostat.serve.http.stream_guard import StreamGuard


class FirstChunkMiddleware:
    """Holds back the headers until the first chunk, and registers event streams with the `StreamGuard`."""

    def __init__(self, app: App, guard: StreamGuard) -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; passes it on unchanged if its connection is unknown."""
        cycle = uvicorn_cycle(receive)
        if scope["type"] != "http" or cycle is None:
            await self.app(scope, receive, send)
            return
        cycle.transport = transport = CoalescingTransport(cycle.transport)
        is_old = scope.get("http_version") == "1.0"
        if is_old:
            cycle.chunked_encoding = (
                False  # HTTP/1.0 has no chunks, which uvicorn sends: the connection's end is the end
            )
        stream: Stream | None = None

        async def watched(message: Message) -> None:
            nonlocal stream
            if message["type"] == "http.response.start":
                transport.hold()
                if is_stream(message) and not is_old:
                    stream = Stream(self.guard, transport.get_extra_info("socket"))
                await send(message)
                return
            if is_old:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn refuses more than was announced
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
    """Wraps a transport: buffers what is written between `hold` and `flush`, and writes it at once."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def hold(self) -> None:
        """Starts buffering."""
        self._held = []

    def flush(self) -> bool:
        """Writes what was buffered; returns whether there was any."""
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))
        return bool(held)

    def write(self, data: bytes) -> None:
        """Writes, or buffers after `hold`."""
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def close(self) -> None:
        """Flushes, then closes the transport."""
        self.flush()
        self._transport.close()


class Stream:
    """A server-sent event stream; the guard holds its connection from just after the first chunk until the last."""

    def __init__(self, guard: StreamGuard, connection: Any) -> None:
        self.guard, self.connection = guard, connection
        self.number: int | None = None
        self.has_ended = False

    def begin(self) -> None:
        """Registers in the next event loop iteration: an error event before the headers would be invalid."""
        asyncio.get_running_loop().call_soon(self._hold)

    def _hold(self) -> None:
        if not self.has_ended and self.connection.fileno() >= 0:
            self.number = self.guard.hold(self.connection)

    def end(self) -> None:
        """Releases the connection. Idempotent."""
        self.has_ended = True
        if self.number is not None:
            self.guard.release(self.number)
            self.number = None


def uvicorn_cycle(receive: Any) -> Any:
    """uvicorn's request object, inside Ray's wrapper; None for another server."""
    cycle = getattr(getattr(receive, "_receive", receive), "__self__", None)
    return cycle if hasattr(cycle, "transport") else None


def is_stream(start: Message) -> bool:
    """Whether a response with these headers is a chunked event stream."""
    headers = dict(start.get("headers", ()))
    return headers.get(b"content-type", b"").startswith(b"text/event-stream") and b"content-length" not in headers
