"""Prometheus service discovery for the current Ray.

Every Ray node has an agent that exports the metrics of all its processes, including ours. Ray lists the agents in
`prom_metrics_service_discovery.json`, which Prometheus watches; only the API server writes it, so for a Ray without one
it is written here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from heliostat.infra.errors import ResourceError

DISCOVERY = "prom_metrics_service_discovery.json"
LISTENS = "127.0.0.1:9090"
"""Where the Prometheus of infra/prometheus/prometheus.yaml listens."""


def metrics_targets() -> list[str]:
    """`host:port` of the metrics agent of each live node; each serves `/metrics`."""
    import ray

    return [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]


def discovery_file() -> Path:
    """The service discovery file of the current Ray; the path is the same for each Ray with this temporary folder."""
    from ray._private.worker import _global_node

    if _global_node is None:
        raise ResourceError("Ray: not in use here, so it has no metrics; open a session first")
    return Path(_global_node.get_temp_dir_path()) / DISCOVERY


@contextmanager
def discoverable() -> Iterator[Path]:
    """Writes the discovery file in place of Ray's API server, and removes it afterwards, with its targets."""
    from ray._private.worker import _global_node

    link = discovery_file()
    file = Path(_global_node.get_session_dir_path()) / DISCOVERY
    file.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": metrics_targets()}]))
    part = link.with_name(f"{DISCOVERY}.{os.getpid()}")
    part.symlink_to(file)
    part.replace(link)
    try:
        yield link
    finally:
        forget(link, file)


def forget(link: Path, file: Path) -> None:
    """Removes the link, with its targets, if it leads to `file`; otherwise a Ray that started later owns it.

    A link that leads nowhere would not do: Prometheus keeps the targets of what it cannot read.
    """
    if link.is_symlink() and link.resolve() == file.resolve():
        link.unlink(missing_ok=True)


def scrape_values(files: Sequence[Path], listens: str = LISTENS) -> dict[str, Any]:
    """The shipped Prometheus configuration, with these discovery files in place of Ray's default.

    `listens` is `host:port` of that Prometheus, which scrapes itself too. The rules are read where they are shipped.
    """
    shipped = shipped_folder("prometheus")
    values: dict[str, Any] = yaml.safe_load((shipped / "prometheus.yaml").read_text(encoding="utf-8"))
    values["rule_files"] = [str(shipped.resolve() / name) for name in values["rule_files"]]
    for job in values["scrape_configs"]:
        for discovery in job.get("file_sd_configs", []):
            discovery["files"] = [str(file) for file in files]
        for static in job.get("static_configs", []):
            static["targets"] = [listens]
    return values


def shipped_folder(name: str) -> Path:
    """A folder of `infra/` with files for other programs, such as `prometheus` or `grafana`."""
    from heliostat import infra

    return Path(next(iter(infra.__path__))) / name


def prometheus_config(target: Path, listens: str = LISTENS) -> Path:
    """Writes the Prometheus configuration for the current Ray to `target`, for `prometheus --config.file=TARGET`."""
    values = scrape_values([discovery_file()], listens)
    target.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return target
