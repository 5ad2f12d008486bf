"""What goes onto the wire, and what of it when the server is killed, over real connections."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from heliostat.cluster.folders import free_ports
from heliostat.serve.errors import Message, Receive, Scope, Send
from heliostat.serve.http.first_chunk import FirstChunkMiddleware
from heliostat.serve.http.stream_guard import GONE, StreamGuard
from tests.waiting import until

SERVER = """
import asyncio, sys, uvicorn
from heliostat.serve.http.stream_guard import StreamGuard
from heliostat.serve.http.first_chunk import FirstChunkMiddleware

async def app(scope, receive, send):
    await receive()
    events = scope["path"] != "/text"
    kind = b"text/event-stream; charset=utf-8" if events else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
        await asyncio.sleep(0)
    await asyncio.sleep(0 if scope["path"] == "/short" else 60)
    await send({"type": "http.response.body", "body": b"data: [DONE]\\n\\n"})

whole = FirstChunkMiddleware(app, StreamGuard())
uvicorn.run(whole, port=int(sys.argv[1]), lifespan="off", log_level="critical", loop=sys.argv[2])
"""


@contextmanager
def serving(loop: str = "asyncio", mark: str = "") -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_ports(1)[0]
    with (
        subprocess.Popen([sys.executable, "-c", SERVER, str(port), loop], env={**os.environ, "MARK": mark}) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        try:
            until(lambda: not _refuses(client), "the server answers", seconds=30)
            yield process, client
        finally:
            process.kill()


def _refuses(client: httpx.Client) -> bool:
    try:
        return client.get("/short").text.count("data: ") != 4
    except httpx.ConnectError:
        return True


def processes(mark: str) -> list[Path]:
    """Those whose environment holds `mark`."""
    return [one for one in Path("/proc").glob("[0-9]*") if _has(one, mark)]


def _has(process: Path, mark: str) -> bool:
    try:
        return mark.encode() in (process / "environ").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stream_whose_server_is_killed_ends_with_an_error_event(loop: str) -> None:
    with serving(loop) as (process, client), client.stream("POST", "/long") as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(5)] == ["data: 0", "", "data: 1", "", "data: 2"]
        os.kill(process.pid, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert rest == ["data: " + json.dumps(GONE.body, separators=(",", ":"))]


def test_http_1_0_has_no_chunks() -> None:
    """The connection ends the stream; other versions are told its length chunk by chunk."""
    with serving() as (_, client):
        for version, chunked in ((b"1.0", False), (b"1.1", True)):
            address = (client.base_url.host, client.base_url.port or 0)
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(b"POST /short HTTP/%s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % version)
                head, _, text = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
            assert (b"transfer-encoding: chunked" in head.lower()) is chunked
            assert (text == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: [DONE]\n\n") is not chunked


def test_what_is_no_stream_of_events_is_cut() -> None:
    with serving() as (process, client), client.stream("POST", "/text") as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_a_connection_whose_stream_has_ended_gets_nothing_more() -> None:
    with serving() as (process, client):
        with client.stream("POST", "/short") as response:
            assert response.read().endswith(b"data: [DONE]\n\n")
            stream = response.extensions["network_stream"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert stream.read(1024, timeout=30) == b""


def test_the_guard_ends_with_its_server() -> None:
    mark = f"heliostat-test-{os.getpid()}"
    with serving(mark=mark) as (process, _):
        assert len(processes(mark)) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: not processes(mark), "no process is left", seconds=30)


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True


class Cycle:
    """As uvicorn's: writes each message to its transport as it comes."""

    def __init__(self) -> None:
        self.transport: Any = Transport()

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b""}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.transport.write(b"head ")
        elif message["body"]:
            self.transport.write(message["body"])
        if message.get("more_body") is False:
            self.transport.close()


def written(*messages: Message) -> Transport:
    cycle = Cycle()
    transport = cycle.transport

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    asyncio.run(FirstChunkMiddleware(app, cast("StreamGuard", None))({"type": "http"}, cycle.receive, cycle.send))
    return cast("Transport", transport)


START: Message = {"type": "http.response.start", "status": 200}


def piece(text: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


def test_the_head_is_written_with_the_first_piece_and_each_other_by_itself() -> None:
    transport = written(START, piece(b"a"), piece(b"b"), piece(b"c", more=False))
    assert transport.writes == [b"head a", b"b", b"c"]
    assert transport.is_closed


def test_a_head_without_a_body_is_written_before_the_connection_closes() -> None:
    transport = written(START, piece(b"", more=False))
    assert transport.writes == [b"head "]
    assert transport.is_closed


def test_nothing_is_written_of_an_answer_that_breaks_before_its_first_piece() -> None:
    assert written(START).writes == []
