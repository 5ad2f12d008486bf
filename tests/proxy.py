"""A proxy of bytes in front of a server: with TLS, and with connections that break."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Proxy:
    """Listens on a port of the loopback, and passes on what it is sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.port = 0
        self._loop, self._target = loop, port
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self, tls: ssl.SSLContext | None) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]

    def break_connections(self) -> int:
        """Breaks those that are open, without a word; returns how many."""

        async def abort() -> int:
            for writer in self._writers:
                writer.transport.abort()
            return len(self._writers)

        return asyncio.run_coroutine_threadsafe(abort(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, ssl.SSLError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ways = [asyncio.ensure_future(one) for one in (_pump(reader, far_writer), _pump(far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            far_writer.transport.abort()
        self._writers.discard(writer)
        with suppress(OSError, ssl.SSLError):
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextmanager
def proxy(port: int, certificate: Path | None = None) -> Iterator[Proxy]:
    """A proxy in front of a port of the loopback, with TLS where there is a certificate (with its key, in PEM)."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = Proxy(loop, port)
    asyncio.run_coroutine_threadsafe(made.listen(tls), loop).result(10)
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(_end_others(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=5)
