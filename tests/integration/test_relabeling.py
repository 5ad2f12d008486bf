"""What a real Prometheus keeps of Ray's metrics: it scrapes an agent made up of names and labels of Ray 2.60."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat.cluster.scrape import scrape_values
from heliostat.infra.alerts import files
from heliostat.infra.alerts.ray_names import RAY_NAMES
from heliostat.infra.metrics.catalogue import CATALOGUE
from heliostat.infra.relabeling import BY, FAMILIES, contents, operator_rules, rules, used_names
from tests.ports import free_port
from tests.tools import need
from tests.waiting import until

OURS = [
    f"{metric.exposed}{part}"
    for metric in CATALOGUE
    for part in (("_bucket", "_count") if metric.kind == "histogram" else ("",))
    if metric.through == "ray"
]
DROPPED = {
    "ray_data_block_size_bytes_bucket": {"dataset": "d", "operator": "o", "WorkerId": "w", "le": "1"},
    "ray_data_output_rows": {"dataset": "d", "operator": "o"},
    "ray_serve_replica_processing_queries": {"deployment": "D", "replica": "r", "WorkerId": "w"},
    "ray_serve_deployment_processing_latency_ms_bucket": {"route": "/", "replica": "r", "WorkerId": "w", "le": "1"},
    "ray_owned_objects": {"WorkerId": "w", "State": "InMemory"},
    "ray_total_lineage_bytes": {"WorkerId": "w"},
    "ray_component_cpu_percentage": {"Component": "ServeReplica", "pid": "7"},
    "ray_job_duration_s": {"JobId": "01000000"},
}
KEPT = {
    "ray_operation_count_total": {"Method": "m", "WorkerId": ""},
    "ray_orders_total": {"WorkerId": "w"},
    "ray_serve_controller_num_control_loops": {"actor_id": "a"},
}
"""Those of nodes, which no process adds to, and what users export."""


def exposition(jobs: int) -> str:
    """What an agent serves once so many data sets, replicas and jobs have come and gone."""
    lines = []
    for number in range(jobs):
        for name, labels in DROPPED.items():
            told = {label: f"{value}{number}" if label in BY else value for label, value in labels.items()}
            lines.append(_line(name, told))
    lines += [_line(name, dict.fromkeys(BY, "x")) for name in (*used_names(), *OURS)]
    lines += [_line(name, labels) for name, labels in KEPT.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "} 1"


class Agent(BaseHTTPRequestHandler):
    text = exposition(100).encode()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, str]]]]:
    """The labels of all series that a Prometheus has of the agent, by their names."""
    folder, port = tmp_path_factory.mktemp("relabeling"), free_port()
    with HTTPServer(("127.0.0.1", 0), Agent) as agent:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        discovery = folder / "agents.json"
        discovery.write_text(json.dumps([{"targets": [f"127.0.0.1:{agent.server_port}"], "labels": {"job": "ray"}}]))
        values = scrape_values([discovery], f"127.0.0.1:{port}")
        values["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(values))
        options = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command = [need("prometheus"), *options, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        with subprocess.Popen(command) as process:
            try:
                until(lambda: bool(series(port)), "the agent is scraped", 90)
                found: dict[str, list[dict[str, str]]] = {}
                for one in series(port):
                    found.setdefault(one["__name__"], []).append(one)
                yield found
            finally:
                process.terminate()
                agent.shutdown()


def series(port: int) -> list[dict[str, str]]:
    query = urllib.parse.urlencode({"match[]": '{__name__=~"ray_.+"}', "start": time.time() - 600})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/series?{query}", timeout=5) as answer:
            return list(json.load(answer)["data"])
    except OSError:
        return []


def test_what_a_panel_or_a_rule_asks_for_is_kept(scraped: dict[str, list[dict[str, str]]]) -> None:
    assert set(RAY_NAMES) <= set(used_names())
    assert {*used_names(), *OURS} <= set(scraped)
    for name in (*used_names(), *OURS):
        assert {label: scraped[name][0][label] for label in BY} == dict.fromkeys(BY, "x"), "with its labels"


def test_a_hundred_data_sets_replicas_and_jobs_add_nothing(scraped: dict[str, list[dict[str, str]]]) -> None:
    assert set(scraped) & set(DROPPED) == set()
    assert set(scraped) == {*used_names(), *OURS, *KEPT}
    assert sum(map(len, scraped.values())) == len(scraped)
    assert not any("__tmp_kept" in labels for found in scraped.values() for labels in found)


def test_what_is_dropped_is_asked_for_by_nothing() -> None:
    assert not set(DROPPED) & set(used_names())
    families = re.compile(rf"ray_({'|'.join(FAMILIES)})_")
    assert not any(families.match(name) for name in OURS)


@pytest.mark.parametrize("file", [file for file, _ in contents()], ids=lambda file: file.name)
def test_the_files_are_what_the_rules_give(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == dict(contents())[file], "run python -m heliostat.infra.relabeling"


def test_both_places_drop_the_same_of_each_agent() -> None:
    (_, ray) = yaml.safe_load((files.MACHINE_FILE.parent / "prometheus.yaml").read_text())["scrape_configs"]
    assert ray["metric_relabel_configs"] == rules()
    monitor = yaml.safe_load((files.KUBERNETES_FILE.parent / "podmonitor.yaml").read_text())
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert endpoint["metricRelabelings"] == operator_rules()
