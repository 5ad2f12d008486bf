"""The monitor with small scripts in place of Prometheus and Alertmanager."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from heliostat.cluster.monitor import parts
from heliostat.cluster.monitor.monitor import down, up
from heliostat.cluster.monitor.services import EXPORTER_JOB, prometheus_values, services
from heliostat.cluster.monitor.settings import Settings
from heliostat.cluster.monitor.status import status
from heliostat.cluster.session import processes
from heliostat.infra.alerts.watching import EXPORTER
from heliostat.infra.errors import ConfigError, ResourceError
from tests.ports import free_port
from tests.waiting import until

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if "--version" in sys.argv:
    sys.exit(print("fake, version 2.42.0 (branch: none)"))
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
[address] = [one.partition("=")[2] for one in sys.argv if one.startswith("--web.listen-address=")]
HTTPServer(("127.0.0.1", int(address.rpartition(":")[2])), Ready).serve_forever()
"""
FAILS = 'case "$1" in --version) echo "fake, version 2.42.0";; *) echo "no disk left" >&2; exit 1;; esac'
NAMES = ("prometheus", "prometheus-alertmanager")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PATH with nothing but what a test puts there; nothing that it starts stays."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield tmp_path / "bin"
    down()


def put(path: Path, script: str, *names: str) -> None:
    for name in names:
        (path / name).write_text(f"#!/bin/sh\n{script}\n")
        (path / name).chmod(0o755)


def put_servers(path: Path, *names: str) -> None:
    (path / "server.py").write_text(SERVER)
    put(path, f'exec "{sys.executable}" "{path}/server.py" "$@"', *names or NAMES)


def ports() -> Settings:
    return Settings(prometheus_port=free_port(), alertmanager_port=free_port(), page_port=free_port())


NONE = dict.fromkeys(("alertmanager", "prometheus", "page"), "not started")
ALL = dict.fromkeys(NONE, "runs")


def states() -> dict[str, str]:
    return {one.name: one.state for one in status()}


def test_a_program_that_is_not_there_is_named_with_where_to_have_it(path: Path) -> None:
    put_servers(path, "prometheus")
    with pytest.raises(ResourceError, match=r"apt-get install prometheus-alertmanager, or https://prometheus.io"):
        up(ports())


def test_a_program_that_is_too_old_is_refused_and_nothing_stays(path: Path) -> None:
    put_servers(path, "alertmanager")
    put(path, 'echo "prometheus, version 2.9.3"', "prometheus")
    with pytest.raises(ResourceError, match=r"is version 2\.9; 2\.42 is the oldest that works"):
        up(ports())
    assert states() == NONE


def test_a_port_in_use_names_the_port_and_the_option(path: Path) -> None:
    put_servers(path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"Prometheus: port {port} .*--prometheus-port"):
            up(replace(ports(), prometheus_port=port))
    assert states() == NONE


def test_a_port_of_the_page_in_use_is_told_in_one_line(path: Path) -> None:
    put_servers(path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"Dashboards' page: port {port} .*; --page-port gives") as caught:
            up(replace(ports(), page_port=port))
    assert "\n" not in str(caught.value)
    assert states() == NONE


def test_the_page_has_the_shipped_dashboards_and_asks_the_prometheus_beside_it(path: Path) -> None:
    put_servers(path)
    options = ports()
    found, _ = up(options)
    told = parts.get(f"{found[2].url}/dashboards.json")
    assert told["prometheus"] == found[1].url
    assert told["scrape_seconds"] == 5
    assert {"heliostat", "heliostat-serving", "heliostat-training"} <= {one["uid"] for one in told["dashboards"]}


def test_one_that_does_not_start_says_why_and_takes_the_other_along(path: Path) -> None:
    put_servers(path)
    put(path, FAILS, "prometheus")
    before = {one.pid for one in psutil.Process().children()}
    with pytest.raises(ResourceError, match=r"Prometheus: ended as it was started \(no disk left\); .*prometheus.log"):
        up(ports())
    left = [one for one in psutil.Process().children() if one.pid not in before]
    assert [one for one in left if processes.started_at(one.pid)] == []


def test_one_that_does_not_answer_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "START_SECONDS", 0.5)
    script = 'case "$1" in --version) echo "fake, version 2.42.0";; *) exec /bin/sleep 60;; esac'
    put(path, script, *NAMES)
    with pytest.raises(ResourceError, match=r"Alertmanager: not ready in 0.5 s \(it said nothing\)"):
        up(ports())
    assert states()["alertmanager"] == "not started"


def test_a_second_up_finds_what_runs_and_down_ends_it_once(path: Path) -> None:
    put_servers(path)
    first, started = up(ports())
    assert started == ["alertmanager", "prometheus", "page"]
    assert states() == ALL
    assert up(Settings()) == (first, [])
    assert down() == ["Dashboards' page", "Prometheus", "Alertmanager"]
    assert [one for one in first if one.is_running or one.answers] == []
    assert down() == []


def test_only_the_part_that_has_ended_is_started_again(path: Path) -> None:
    put_servers(path)
    (alertmanager, prometheus, _), _ = up(ports())
    processes.end([psutil.Process(alertmanager.pid)], seconds=0)
    assert states() == {**ALL, "alertmanager": "ended"}
    again, started = up(Settings())
    assert started == ["alertmanager"]
    assert again[1] == prometheus


def test_other_options_for_one_that_runs_are_refused(path: Path) -> None:
    put_servers(path)
    up(ports())
    with pytest.raises(ResourceError, match=r"Prometheus: runs at .* with other options; heliostat monitor down"):
        up(Settings(prometheus_port=free_port()))
    assert states() == ALL


def test_a_process_that_has_the_id_of_an_ended_one_is_left_alone(path: Path) -> None:
    put_servers(path)
    (alertmanager, *_), _ = up(ports())
    down()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        stale = replace(alertmanager, pid=other.pid)
        (Path(os.environ["HELIOSTAT_HOME"]) / "monitor" / "alertmanager.json").write_text(json.dumps(asdict(stale)))
        assert states()["alertmanager"] == "ended"
        assert down() == []
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("given", [Settings(rules=["none.yaml"]), Settings(alertmanager_config="none.yaml")])
def test_a_file_that_is_not_there_is_named(given: Settings) -> None:
    with pytest.raises(ConfigError, match=r"--(rules|alertmanager-config): none.yaml: no such file"):
        up(given)


def test_a_file_that_amtool_refuses_is_told(path: Path, tmp_path: Path) -> None:
    put_servers(path)
    put(path, "echo no route provided >&2; exit 1", "amtool")
    (tmp_path / "own.yaml").write_text("receivers: []\n")
    with pytest.raises(ConfigError, match=r"own.yaml: refused by amtool: no route provided"):
        up(replace(ports(), alertmanager_config=str(tmp_path / "own.yaml")))


def test_the_exporter_is_a_part_where_a_storage_is_named(tmp_path: Path) -> None:
    assert [one.name for one in services(ports())] == ["alertmanager", "prometheus", "page"]
    named = replace(ports(), storage=str(tmp_path / "data"), exporter_port=free_port())
    assert [one.name for one in services(named)] == ["alertmanager", "prometheus", "page", "exporter"]
    jobs = {job["job_name"]: job for job in prometheus_values(named, [])["scrape_configs"]}
    assert jobs["heliostat-exporter"]["static_configs"] == [{"targets": [f"127.0.0.1:{named.exporter_port}"]}]
    assert f'job="{EXPORTER_JOB}"' == EXPORTER


def test_the_exporter_tells_of_the_storage_and_ends_with_the_others(path: Path, tmp_path: Path) -> None:
    put_servers(path)
    (tmp_path / "data" / "runs" / "m" / "r1").mkdir(parents=True)
    (tmp_path / "data" / "runs" / "m" / "r1" / "run.json").write_text('{"status": "finished"}')
    up(replace(ports(), storage=str(tmp_path / "data"), exporter_port=free_port()))
    part = parts.running("exporter")
    assert part
    seen = '{model="m",run="r1",state="finished"} 1.0'
    until(lambda: seen in urllib.request.urlopen(f"{part.url}/metrics").read().decode(), "the run is told", 60)
    assert states() == {"alertmanager": "runs", "exporter": "runs", "page": "runs", "prometheus": "runs"}
    assert set(down()) == {"Alertmanager", "Dashboards' page", "Exporter", "Prometheus"}
    assert not part.is_running
