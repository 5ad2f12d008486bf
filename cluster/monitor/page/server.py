"""Serves the page on the loopback: `python -m heliostat.cluster.monitor.page.server --port 3100 --prometheus URL`.

It answers fixed files that are read when it starts, the dashboards, and questions to one Prometheus.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heliostat.cluster.loopback import Answer, LoopbackHandler, LoopbackServer, RefusedError
from heliostat.cluster.monitor.page.proxy import Proxy

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
DASHBOARD = re.compile(r"/d/([A-Za-z0-9_-]+)(?:/[^/]*)?")
"""The address of a dashboard, the same as in Grafana."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing on the page makes HTML of a text (trusted types), and no script but the files runs."""


class Server(LoopbackServer):
    """The page's server. Port 0 is any that is free."""

    def __init__(self, port: int, prometheus: str, dashboards: Path, scrape_seconds: float) -> None:
        self.proxy = Proxy(prometheus)
        self.fixed = {**static_files(), **dashboard_files(dashboards, prometheus, scrape_seconds)}
        super().__init__(port, Handler)


class Handler(LoopbackHandler):
    """A request for a file, a dashboard or a query's result."""

    server: Server
    policy = POLICY

    def answer(self) -> Answer:
        """The file, the dashboard or the query's result."""
        address = urlsplit(self.path)
        if DASHBOARD.fullmatch(address.path):
            return self.server.fixed["/"]
        if found := self.server.fixed.get(address.path):
            return found
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError(HTTPStatus.FORBIDDEN, "queries are answered for this page only")
        return Answer("application/json", self.server.proxy.ask(address.path, address.query))


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
