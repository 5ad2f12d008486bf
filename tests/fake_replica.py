"""A replica without Ray or a model, as a program: `fake_replica.py PORT TIMEOUT_SECONDS BODY_TIMEOUT_SECONDS`.

What a request's body begins with is what happens to it: `crash` ends the process, `wait:SECONDS` answers late,
`stream:SECONDS` sends an event every tenth of a second for so long. The answer says what was received and by whom. Each
request is printed as a line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EVENT_SECONDS = 0.1


class Replica(BaseHTTPRequestHandler):
    """Answers as the body of the request says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        deadlines = {"timeout_seconds": float(sys.argv[2]), "body_timeout_seconds": float(sys.argv[3])}
        self.answer({**deadlines, "method": self.command})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        sys.stdout.write(f"{body[:80]}\n")
        sys.stdout.flush()
        word, _, seconds = body.partition(":")
        if word == "crash":
            os._exit(1)
        if word == "wait":
            time.sleep(float(seconds))
        if word == "stream":
            self.stream(int(float(seconds) / EVENT_SECONDS))
        else:
            self.answer({"body": body, "port": int(sys.argv[1]), "headers": dict(self.headers)})

    def answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events: int) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(events):
            event = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(EVENT_SECONDS)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Replica).serve_forever()
