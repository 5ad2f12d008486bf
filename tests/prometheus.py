"""A real Prometheus that watches the Ray in use, and an Alertmanager that it tells of alerts, on this machine."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from heliostat.cluster.monitor.services import EXPORTER_JOB, NO_RECEIVER
from heliostat.cluster.scrape import prometheus_config
from heliostat.infra.alerts import files
from tests.ports import free_port
from tests.tools import need
from tests.waiting import until

DURATION = r"(\d+)(s|m|h)\b"
SECONDS = 240
"""How long an alert may take to fire, or to end."""
SHORTER = {"s": "s", "m": "s", "h": "m"}


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus on this machine."""

    url: str
    started: float

    def get(self, path: str, **parameters: object) -> Any:
        """The `data` of an answer of its HTTP API."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        return _json(f"{self.url}/api/v1/{path}?{query}")["data"]

    def now(self, query: str) -> list[float]:
        """The values of a query at this moment."""
        return [float(one["value"][1]) for one in self.get("query", query=query)["result"]]

    def since_start(self, query: str) -> list[float]:
        """All values of a query since the test began, as a panel of Grafana asks for them."""
        window = {"start": self.started, "end": time.time(), "step": "1s"}
        series = self.get("query_range", query=query, **window)["result"]
        return [float(value) for one in series for _, value in one["values"]]


@dataclass(frozen=True)
class Alertmanager:
    """An Alertmanager on this machine."""

    url: str

    def firing(self, name: str = "") -> list[dict[str, str]]:
        """The labels of the alerts that fire now, of this name or of any."""
        found = [one["labels"] for one in _json(f"{self.url}/api/v2/alerts?active=true")]
        return [labels for labels in found if name in ("", labels["alertname"])]

    def fires(self, name: str, **labels: str) -> None:
        """Waits until the alert fires with these labels."""
        until(lambda: any(labels.items() <= one.items() for one in self.firing(name)), f"{name} fires", SECONDS)

    def ends(self, *names: str) -> None:
        """Waits until alerts of these names fire no more."""
        until(lambda: not any(map(self.firing, names)), f"{' and '.join(names)} end", SECONDS)

    def is_quiet(self) -> None:
        """Waits until nothing fires but the alert that always does."""
        until(lambda: [one["alertname"] for one in self.firing()] == ["HeliostatWatchdog"], "all is quiet", SECONDS)


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    """Shows alerts as soon as it is told of them."""
    config, port = folder / "alertmanager.yaml", free_port()
    config.write_text(yaml.safe_dump(NO_RECEIVER))
    options = [f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address="]
    command = [need("prometheus-alertmanager"), *options, "--log.level=warn"]
    with running(command, port, "/-/ready", folder / "alertmanager.log") as url:
        yield Alertmanager(url)


@contextmanager
def prometheus(
    folder: Path, *, exporter_port: int | None = None, rules: Path | None = None, tells: Alertmanager | None = None
) -> Iterator[Prometheus]:
    """Scrapes the Ray in use, and an exporter, each second, from the configuration that Heliostat writes for Ray."""
    port = free_port()
    config = prometheus_config(folder / "prometheus.yaml", f"127.0.0.1:{port}")
    values = yaml.safe_load(config.read_text())
    values["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"}
    if exporter_port:
        exporter = {"static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
        values["scrape_configs"].append({"job_name": EXPORTER_JOB, **exporter})
    if rules:
        values["rule_files"] = [str(rules)]
    if tells:
        values["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [tells.url.removeprefix("http://")]}]}]}
    config.write_text(yaml.safe_dump(values))
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--rules.alert.resend-delay=1s"]
    command = [need("prometheus"), *options, "--log.level=warn"]
    with running(command, port, "/-/ready", folder / "prometheus.log") as url:
        yield Prometheus(url, time.time())


@contextmanager
def running(command: Sequence[str], port: int, ready: str, log: Path) -> Iterator[str]:
    """The address of a server of Prometheus's kind, which answers at the path `ready` once it is up."""
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=stream, stderr=stream)
        try:
            until(lambda: process.poll() is not None or _answers(url + ready), f"{command[0]} is up", 60)
            assert process.poll() is None, log.read_text()
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def fast_rules(target: Path) -> Path:
    """Our rules with a minute made a second, for tests that see alerts fire and end; nothing else is changed."""

    def shorter(found: re.Match[str]) -> str:
        return found[1] + re.sub(DURATION, lambda one: one[1] + SHORTER[one[2]], found[2])

    (text,) = (text for path, text in files.contents() if path == files.MACHINE_FILE)
    target.write_text(re.sub(rf"(\[|offset |for: )({DURATION})", shorter, text))
    return target
