"""Servers of pages on the loopback: they answer GET only, and only under a name of the loopback.

A request under another name is refused, so that no site of the web can reach a page by its own DNS name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from heliostat.cluster.folders import LOOPBACK

CLIENT_SECONDS = 30.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of each answer, beside its policy."""


class RefusedError(Exception):
    """A question that is not answered."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """A body and its media type."""

    kind: str
    body: bytes


class LoopbackServer(ThreadingHTTPServer):
    """A server on the loopback. Port 0 is any that is free."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[LoopbackHandler]) -> None:
        super().__init__((LOOPBACK, port), handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that went away, which is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class LoopbackHandler(BaseHTTPRequestHandler):
    """A request; any method but GET is answered 501 by the base class."""

    server: LoopbackServer
    timeout = CLIENT_SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "heliostat", ""
    policy: str
    """The Content-Security-Policy of each answer."""

    def answer(self) -> Answer:
        """What this request is answered; raises RefusedError for those that are not."""
        raise NotImplementedError

    def answered(self) -> None:
        """Called when the answer was sent."""

    def do_GET(self) -> None:
        """Answers what `answer` gives."""
        try:
            if self.headers.get("Host") not in self.server.hosts:
                raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this page answers on the loopback only")
            answer = self.answer()
        except RefusedError as error:
            body = json.dumps({"status": "error", "error": str(error)}).encode()
            self._send(error.status, Answer("application/json", body))
        else:
            self._send(HTTPStatus.OK, answer)
            self.answered()

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.send_response(status)
        own: Mapping[str, str] = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        for name, value in {"Content-Security-Policy": self.policy, **HEADERS, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
