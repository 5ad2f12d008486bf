"""A server of one file on the loopback that breaks off, knows no ranges or answers with errors, as told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOPBACK = "127.0.0.1"


class FileServer:
    """What it is to do, and what it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cuts: list[int] = []
        """Bytes after which the next answers break off, one answer each."""
        self.statuses: list[int] = []
        """Of the next answers, without a body; they come before `cuts`."""
        self.ranges = True
        self.asked: list[str] = []
        """The range of each request; empty where it had none."""
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        self.asked.append(wanted)
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(found[1]) if found and self.ranges else 0
        if self.statuses or (start and start >= len(self.content)):
            handler.send_response(self.statuses.pop(0) if self.statuses else 416)
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    files = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        files.url = f"http://{LOOPBACK}:{server.server_address[1]}/file.tgz"
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
