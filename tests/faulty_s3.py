"""A proxy in front of an S3 server that spoils a share of all calls."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("refused", "lost", "reset", "reset after", "cut off", "slow")
"""503; done, but answered with 500; no answer; done, but no answer; half an answer; an answer that takes its time."""
SLOW_SECONDS = 1.0


class FaultyProxy(ThreadingHTTPServer):
    """Forwards to `target`, but for a `share` of the calls, drawn from `seed`."""

    daemon_threads = True

    def __init__(self, target: str, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.share = urlsplit(target), share
        self.faults: Counter[str] = Counter()
        self.calls = 0
        self._random, self._lock = random.Random(seed), threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def draw(self) -> str:
        """The fault of the next call; empty for none."""
        with self._lock:
            self.calls += 1
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
            self.faults[fault] += bool(fault)
            return fault


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def forward(self) -> None:
        """Answers one call."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.draw()
        if fault == "refused":
            self.answer(503, {}, b"")
        elif fault == "reset":
            self.reset()
        else:
            self.give(fault, *self.ask(body))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815 - http.server's names

    def ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        """What the server says."""
        connection = HTTPConnection(self.server.target.hostname or "", self.server.target.port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def give(self, fault: str, response: HTTPResponse, body: bytes) -> None:
        """Hands the answer on, spoiled or not."""
        kept = {name: value for name, value in response.getheaders() if name.lower() not in ("connection", "date")}
        if fault == "lost":
            self.answer(500, {}, b"")
        elif fault == "reset after":
            self.reset()
        elif fault == "cut off" and body:
            self.answer(response.status, kept, body, body[: len(body) // 2])
            self.reset()
        else:
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            self.answer(response.status, kept, body)

    def answer(self, status: int, headers: dict[str, str], body: bytes, sent: bytes | None = None) -> None:
        """Sends status, headers and a body, or of the body only `sent`."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body if sent is None else sent)

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def faulty(target: str, share: float, seed: int = 0) -> Iterator[FaultyProxy]:
    """A FaultyProxy for as long as the block lasts."""
    with FaultyProxy(target, share, seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
