"""A real Prometheus and Alertmanager of `heliostat monitor`, which watch what takes the place of a Ray's agents."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.folders import ray_folder
from heliostat.cluster.monitor import parts
from heliostat.cluster.monitor.status import seen
from heliostat.cluster.scrape import DISCOVERY
from tests.ports import free_port
from tests.tools import need
from tests.waiting import until

RULES = """
groups:
  - name: own
    interval: 1s
    rules: [{alert: Heartbeat, expr: vector(1), annotations: {summary: it watches}}]
"""


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"ray_one 1\n")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def agent() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def list_agents(*agents: str) -> None:
    """As Ray does when it starts: anew, under the same path and in the folder of a session that runs."""
    session = ray_folder() / f"session_{len(agents)}_{os.getpid()}"
    session.mkdir(parents=True, exist_ok=True)
    (session / DISCOVERY).write_text(json.dumps([{"labels": {"job": "ray"}, "targets": agents}]))
    part = ray_folder() / "part"
    part.symlink_to(session / DISCOVERY)
    part.replace(ray_folder() / DISCOVERY)


def test_up_status_and_down_with_the_real_programs(agent: str, tmp_path: Path) -> None:
    need("prometheus"), need("prometheus-alertmanager")
    (tmp_path / "rules.yaml").write_text(RULES)
    named = ("prometheus", "alertmanager", "page")
    ports = [word for name in named for word in (f"--{name}-port", str(free_port()))] + ["--no-grafana"]
    run = CliRunner()
    list_agents()
    try:
        done = run.invoke(app, ["monitor", "up", *ports, "--rules", str(tmp_path / "rules.yaml")])
        assert done.exit_code == 0, done.output
        prometheus, alertmanager, page = (parts.running(name) for name in named)
        assert prometheus
        assert alertmanager
        assert page
        assert f"dashboards: {page.url}/d/heliostat" in done.output
        list_agents(agent)
        until(lambda: (now := seen(prometheus)).targets_up == now.targets == 3, "Ray, Prometheus, Alertmanager up", 90)
        alerts = f"{alertmanager.url}/api/v2/alerts"
        until(lambda: "Heartbeat" in {one["labels"]["alertname"] for one in parts.get(alerts)}, "the alert", 60)
        now = f"{page.url}/api/v1/query?query=ray_one"
        assert parts.get(now)["data"]["result"][0]["value"][1] == "1"
        told = run.invoke(app, ["monitor", "status"])
        assert told.exit_code == 0
        assert "targets up: 3 of 3" in told.output
        assert "Heartbeat" in told.output
        assert page.url in told.output
        again = run.invoke(app, ["monitor", "up"])
        assert again.exit_code == 0, again.output
        assert again.output.count("since") == 3
        assert parts.running("prometheus") == prometheus
    finally:
        assert run.invoke(app, ["monitor", "down"]).exit_code == 0
    assert not prometheus.answers
    assert not alertmanager.answers
    assert not page.answers
    assert run.invoke(app, ["monitor", "status"]).exit_code == 1
