from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from heliostat import demo
from heliostat.cluster import scrape
from heliostat.cluster.monitor import parts
from heliostat.spec import load_spec
from heliostat.view.terminal import View

EXPORTED = """\
# HELP ray_heliostat_requests_total Requests answered, by HTTP status.
# TYPE ray_heliostat_requests_total counter
ray_heliostat_requests_total{NodeAddress="127.0.0.1",adapter="",model="s",otel_scope_name="r",status="200",Id="a"} 2
ray_heliostat_requests_total{NodeAddress="127.0.0.1",adapter="",model="s",otel_scope_name="r",status="200",Id="b"} 3
# HELP ray_node_cpu_utilization Ray's own.
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{NodeAddress="127.0.0.1"} 50
"""


class Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(EXPORTED.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Agent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(scrape, "metrics_targets", lambda: [f"127.0.0.1:{server.server_port}"])
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("agent")
def test_samples_are_summed_over_the_labels_that_ray_puts_on_them() -> None:
    assert demo.scraped() == {'ray_heliostat_requests_total{model="s", status="200"}': 5.0}


@pytest.mark.usefixtures("agent")
def test_nothing_of_a_sample_is_cut_off() -> None:
    console = Console(width=40, record=True)
    demo.samples(View(console))
    assert 'status="200"' in console.export_text().replace("\n", "")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH and a home with nothing in them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    return tmp_path


WATCH = "Watch it on the dashboards: "
COMMAND = f"{WATCH}heliostat monitor up, then http://127.0.0.1:3100/d/heliostat"


def test_the_command_that_shows_the_dashboards_is_named_with_their_address(programs: Path) -> None:
    for name in ("prometheus", "alertmanager"):
        (programs / name).write_text('#!/bin/sh\necho "version 2.42.0"\n')
        (programs / name).chmod(0o755)
    assert demo.watching() == COMMAND


@pytest.mark.usefixtures("programs")
def test_what_the_dashboards_lack_is_named_with_where_to_have_it() -> None:
    needs = "Prometheus: no prometheus on PATH; install it: apt-get install prometheus, or https://prometheus.io"
    assert demo.watching().startswith(f"{COMMAND}. That needs {needs}")


@pytest.mark.usefixtures("programs")
def test_dashboards_that_are_shown_already_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page = parts.Part("page", "", "http://127.0.0.1:3200", "/", os.getpid(), 0, "", [])
    monkeypatch.setattr(parts, "running", {"page": page}.get)
    assert demo.watching() == f"{WATCH}http://127.0.0.1:3200/d/heliostat"


@pytest.mark.parametrize("recipe", demo.DEMOS)
def test_what_a_recipe_is_cut_down_to_fits_it(recipe: str) -> None:
    assert load_spec(recipe, demo.DEMOS[recipe]).data.limit
