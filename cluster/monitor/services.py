"""The commands and configurations of Prometheus, Alertmanager, the exporter, the dashboards' page and Grafana."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied, joining_environment
from heliostat.cluster.folders import LOOPBACK, ray_folder
from heliostat.cluster.monitor import programs
from heliostat.cluster.monitor.settings import Settings, folder
from heliostat.cluster.scrape import DISCOVERY, scrape_values, shipped_folder
from heliostat.cluster.session.address import check_answers, find_address, head_folder, split_address
from heliostat.infra.errors import ResourceError

RETENTION = "15d"
EXPORTER_JOB = "heliostat-exporter"
"""The label `job` of the exporter, by which alerts find it."""
NO_RECEIVER: dict[str, Any] = {
    "route": {"receiver": "page", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "10s"},
    "receivers": [{"name": "page"}],
}
"""Alertmanager keeps alerts visible on its page and sends them nowhere."""


@dataclass(frozen=True)
class Service:
    """A process of the monitor, before it is started."""

    name: str
    title: str
    port: int
    ready: str
    """Path that answers 200 once it works."""
    program: Callable[[], str]
    """Finds its program; raises ResourceError."""
    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def option(self) -> str:
        """The option that changes its port."""
        return f"--{self.name}-port"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"


def services(settings: Settings) -> list[Service]:
    """What is to run, in the order in which it is started; writes and checks the configurations.

    Raises ConfigError for files that promtool or amtool refuse, ResourceError if the Ray to watch does not answer.
    """
    found = [_alertmanager(settings), _prometheus(settings), page_service(settings)]
    found += [_exporter(settings)] if settings.storage else []
    return [*found, _grafana(settings)] if settings.grafana is not False and shutil.which("grafana") else found


def discovery_files() -> list[Path]:
    """The lists of metrics agents of the user's Rays on this machine, and of the one that RAY_ADDRESS names.

    Their paths stay the same when a Ray is started anew. Raises ResourceError if that Ray does not answer, or keeps
    its list on another machine.
    """
    own, address = ray_folder() / DISCOVERY, find_address(ClusterConfig())
    if address is None:
        return [own]
    check_answers(*split_address(address, "address"), what=f"Ray at {address}")
    with applied(joining_environment(address)):
        joined = head_folder(address) / DISCOVERY
    if joined != own and not joined.exists():
        raise ResourceError(f"Ray at {address}: no {joined} here; run heliostat monitor up on the machine of its head")
    return list(dict.fromkeys([own, joined]))


def prometheus_values(settings: Settings, discovery: Sequence[Path]) -> dict[str, Any]:
    """The configuration of Prometheus: it scrapes Ray, the monitor's parts, and tells Alertmanager of alerts."""
    values = scrape_values(discovery, f"{LOOPBACK}:{settings.port('prometheus')}")
    alertmanager = {"static_configs": [{"targets": [f"{LOOPBACK}:{settings.port('alertmanager')}"]}]}
    values["scrape_configs"].append({"job_name": "alertmanager", **alertmanager})
    if settings.storage:
        exporter = {"static_configs": [{"targets": [f"{LOOPBACK}:{settings.port('exporter')}"]}]}
        values["scrape_configs"].append({"job_name": EXPORTER_JOB, **exporter})
    values["alerting"] = {"alertmanagers": [alertmanager]}
    values["rule_files"] += [str(Path(one).resolve()) for one in settings.rules or []]
    return values


def _prometheus(settings: Settings) -> Service:
    config = folder() / "prometheus.yaml"
    _write(config, prometheus_values(settings, discovery_files()))
    programs.check("promtool", ["check", "config"], config)
    port = settings.port("prometheus")
    options = {
        "config.file": config,
        "storage.tsdb.path": folder() / "prometheus",
        "storage.tsdb.retention.time": RETENTION,
        "rules.alert.resend-delay": "10s",  # the first is sent before Alertmanager is known; by default a minute passes
        "web.listen-address": f"{LOOPBACK}:{port}",
        "log.level": "warn",
    }
    find = lambda: programs.find(programs.PROMETHEUS)  # noqa: E731
    return Service("prometheus", "Prometheus", port, "/-/ready", find, _flags(options))


def _alertmanager(settings: Settings) -> Service:
    if settings.alertmanager_config:
        config = Path(settings.alertmanager_config).resolve()
    else:
        config = folder() / "alertmanager.yaml"
        _write(config, NO_RECEIVER)
    programs.check("amtool", ["check-config"], config)
    port = settings.port("alertmanager")
    options = {
        "config.file": config,
        "storage.path": folder() / "alertmanager",
        "web.listen-address": f"{LOOPBACK}:{port}",
        "cluster.listen-address": "",  # else it listens for others of its kind on all interfaces
        "log.level": "warn",
    }
    find = lambda: programs.find(programs.ALERTMANAGER)  # noqa: E731
    return Service("alertmanager", "Alertmanager", port, "/-/ready", find, _flags(options))


def page_service(settings: Settings) -> Service:
    """The server of the dashboards' page, a process of this Python."""
    port, shipped = settings.port("page"), shipped_folder("prometheus") / "prometheus.yaml"
    interval = yaml.safe_load(shipped.read_text(encoding="utf-8"))["global"]["scrape_interval"]
    options = {
        "port": port,
        "prometheus": f"http://{LOOPBACK}:{settings.port('prometheus')}",
        "dashboards": shipped_folder("grafana") / "dashboards",
        "scrape-seconds": interval.removesuffix("s"),
    }
    arguments = ["-m", "heliostat.cluster.monitor.page.server", *_flags(options)]
    return Service("page", "Dashboards' page", port, "/", lambda: sys.executable, arguments)


def _exporter(settings: Settings) -> Service:
    port = settings.port("exporter")
    arguments = ["-m", "heliostat", "exporter", "--storage", str(settings.storage), "--port", str(port)]
    arguments += ["--endpoint-url", settings.endpoint_url] if settings.endpoint_url else []
    return Service("exporter", "Exporter", port, "/metrics", lambda: sys.executable, arguments)


def _grafana(settings: Settings) -> Service:
    path = shutil.which("grafana") or "grafana"
    unpacked = Path(path).resolve().parent.parent
    place = unpacked if (unpacked / "conf").is_dir() else Path("/usr/share/grafana")
    port, files = settings.port("grafana"), shipped_folder("grafana")
    environment = {
        "PROMETHEUS_URL": f"http://{LOOPBACK}:{settings.port('prometheus')}",
        "HELIOSTAT_DASHBOARDS": str(files / "dashboards"),
        "GF_PATHS_PROVISIONING": str(files / "provisioning"),
        "GF_PATHS_DATA": str(folder() / "grafana"),
        "GF_PATHS_LOGS": str(folder() / "grafana"),
        "GF_SERVER_HTTP_ADDR": LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
    }
    arguments = ["server", "--homepath", str(place)]
    return Service("grafana", "Grafana", port, "/api/health", lambda: path, arguments, environment)


def _flags(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _write(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
