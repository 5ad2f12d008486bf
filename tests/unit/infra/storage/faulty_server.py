"""A small server of objects that fails on command."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from heliostat.infra.storage.s3 import Limits

QUICK = Limits(attempts=3, connect_seconds=1, read_seconds=0.3, deadline_seconds=10)


class FaultyServer(ThreadingHTTPServer):
    """Objects in memory; each request meets the next of `faults`, and none once they are used up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.access_keys: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.access_keys += re.findall(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "silent":
            self.server.closing.wait(5)
            self.reset()
        elif fault == "reset":
            self.reset()
        elif fault == "redirect":
            self.answer(302, b"", location=self.path)
        elif fault.startswith("error "):
            _, status, code = fault.split()
            self.answer(int(status), f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
        elif self.command == "PUT":
            self.put(body)
            if fault == "lost answer":
                self.reset()
            else:
                self.answer(*self.result)
        else:
            self.get(fault)

    do_GET = do_PUT = do_HEAD = handle_any  # noqa: N815 - names that http.server asks for

    def put(self, body: bytes) -> None:
        if self.headers.get("If-None-Match") == "*" and self.path in self.server.objects:
            self.result = 412, b"<Error><Code>PreconditionFailed</Code></Error>"
        else:
            self.server.objects[self.path] = body
            self.result = 200, b""

    def get(self, fault: str) -> None:
        data = self.server.objects.get(self.path.partition("?")[0])
        if data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "half":
            self.wfile.write(data[: len(data) // 2])
            self.reset()
        elif fault == "trickle":
            for byte in data:
                if self.server.closing.wait(0.05):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        elif self.command == "GET":
            self.wfile.write(data)

    def answer(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset(self) -> None:
        """Ends the connection as a crash would: with RST, not with FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = self.rfile = open(os.devnull, "wb+")  # noqa: SIM115 - http.server flushes and closes it

    def log_message(self, *_: Any) -> None:
        pass
