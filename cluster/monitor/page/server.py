"""Serves the page on the loopback: `python -m heliostat.cluster.monitor.page.server --port 3100 --prometheus URL`.

It answers GET only: fixed files that are read when it starts, the dashboards, and questions to one Prometheus. Requests
under another name than that of the loopback are refused, so that no site of the web can reach it by its own DNS name.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heliostat.cluster.folders import LOOPBACK
from heliostat.cluster.monitor.page.proxy import Proxy, RefusedError

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
DASHBOARD = re.compile(r"/d/([A-Za-z0-9_-]+)(?:/[^/]*)?")
"""The address of a dashboard, the same as in Grafana."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of each answer. Nothing on the page makes HTML of a text (trusted types), and no script but the files runs."""
CLIENT_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """A fixed answer."""

    kind: str
    body: bytes


class Server(ThreadingHTTPServer):
    """The page's server. Port 0 is any that is free."""

    daemon_threads = True

    def __init__(self, port: int, prometheus: str, dashboards: Path, scrape_seconds: float) -> None:
        self.proxy = Proxy(prometheus)
        self.fixed = {**static_files(), **dashboard_files(dashboards, prometheus, scrape_seconds)}
        super().__init__((LOOPBACK, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}


class Handler(BaseHTTPRequestHandler):
    """A request; any method but GET is answered 501 by the base class."""

    server: Server
    timeout = CLIENT_SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "heliostat", ""

    def do_GET(self) -> None:
        """Answers a file, a dashboard or a query's result."""
        try:
            answer = self._answer()
        except RefusedError as error:
            body = json.dumps({"status": "error", "error": str(error)}).encode()
            self._send(error.status, Answer("application/json", body))
        else:
            self._send(HTTPStatus.OK, answer)

    def _answer(self) -> Answer:
        if self.headers.get("Host") not in self.server.hosts:
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this page answers on the loopback only")
        address = urlsplit(self.path)
        if DASHBOARD.fullmatch(address.path):
            return self.server.fixed["/"]
        if found := self.server.fixed.get(address.path):
            return found
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "queries are answered for this page only")
        return Answer("application/json", self.server.proxy.ask(address.path, address.query))

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": answer.kind, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def static_files() -> dict[str, Answer]:
    """The page's own files, by their paths."""
    folder = Path(str(files(__package__))) / "static"
    found = {
        f"/{file.relative_to(folder).as_posix()}": Answer(f"{kind}; charset=utf-8", file.read_bytes())
        for file in folder.rglob("*")
        if (kind := TYPES.get(file.suffix[1:]))
    }
    return {**found, "/": found.pop("/index.html")}


def dashboard_files(folder: Path, prometheus: str, scrape_seconds: float) -> dict[str, Answer]:
    """Each dashboard as `/dashboards/UID.json`; `/dashboards.json` lists them by uid, and has the page's settings."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    found.sort(key=lambda one: str(one["uid"]))
    listed = [{key: one.get(key) for key in ("uid", "title", "tags")} for one in found]
    settings = {"prometheus": prometheus, "scrape_seconds": scrape_seconds, "dashboards": listed}
    return {"/dashboards.json": _json(settings), **{f"/dashboards/{one['uid']}.json": _json(one) for one in found}}


def _json(values: Mapping[str, Any]) -> Answer:
    return Answer("application/json", json.dumps(values).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m heliostat.cluster.monitor.page.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--dashboards", type=Path, required=True)
    parser.add_argument("--scrape-seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    with Server(given.port, given.prometheus, given.dashboards, given.scrape_seconds) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
