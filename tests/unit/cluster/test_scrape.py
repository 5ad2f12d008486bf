from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from heliostat import infra
from heliostat.cluster import scrape
from heliostat.infra.errors import ResourceError
from tests.tools import need

SHIPPED = Path(next(iter(infra.__path__))) / "prometheus" / "prometheus.yaml"


class Node:
    """A Ray node with its folders below one."""

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.session = folder, folder / session
        self.session.mkdir()

    def get_temp_dir_path(self) -> str:
        return str(self.folder)

    def get_session_dir_path(self) -> str:
        return str(self.session)


def use(node: Node | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    machines = [("10.0.0.1", 8080, True), ("10.0.0.2", 8081, True), ("10.0.0.3", 8082, False)]
    nodes = [{"NodeManagerAddress": host, "MetricsExportPort": port, "Alive": up} for host, port, up in machines]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray._private.worker, "_global_node", node)


def test_the_targets_are_the_agents_of_living_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    use(None, monkeypatch)
    assert scrape.metrics_targets() == ["10.0.0.1:8080", "10.0.0.2:8081"]


def test_the_discovery_file_is_where_prometheus_looks_and_goes_with_the_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Node(tmp_path, "session"), monkeypatch)
    with scrape.discoverable() as link:
        assert link == scrape.discovery_file() == tmp_path / "prom_metrics_service_discovery.json"
        assert json.loads(link.read_text()) == [
            {"labels": {"job": "ray"}, "targets": ["10.0.0.1:8080", "10.0.0.2:8081"]}
        ]
    assert not link.is_symlink()


def test_a_ray_that_ends_leaves_the_file_of_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Node(tmp_path, "one"), monkeypatch)
    with scrape.discoverable() as link:
        (tmp_path / "later.json").touch()
        link.unlink()
        link.symlink_to(tmp_path / "later.json")
    assert link.is_symlink()


def test_without_ray_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    use(None, monkeypatch)
    with pytest.raises(ResourceError, match="open a session first"):
        scrape.discovery_file()


def test_the_shipped_configuration_reads_rays_own_file_and_keeps_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)  # integration tests of the same process have set it
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load(SHIPPED.read_text())
    itself, job = config["scrape_configs"]
    assert itself == {"job_name": "prometheus", "static_configs": [{"targets": [scrape.LISTENS]}]}
    assert (job["job_name"], job["honor_labels"]) == ("ray", True)
    default = f"{get_default_ray_temp_dir()}/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"
    assert job["file_sd_configs"][0]["files"] == [default]
    assert PROMETHEUS_SERVICE_DISCOVERY_FILE == scrape.DISCOVERY


def test_a_ray_on_this_machine_gets_the_same_with_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Node(tmp_path, "session"), monkeypatch)
    config = yaml.safe_load(scrape.prometheus_config(tmp_path / "prometheus.yaml", "127.0.0.1:9191").read_text())
    shipped = yaml.safe_load(SHIPPED.read_text())
    shipped["rule_files"] = [str(SHIPPED.parent.resolve() / "rules.yaml")]
    shipped["scrape_configs"][0]["static_configs"][0]["targets"] = ["127.0.0.1:9191"]
    shipped["scrape_configs"][1]["file_sd_configs"][0]["files"] = [str(tmp_path / scrape.DISCOVERY)]
    assert config == shipped


def test_prometheus_takes_both_configurations_with_their_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Node(tmp_path, "session"), monkeypatch)
    for config in (SHIPPED, scrape.prometheus_config(tmp_path / "prometheus.yaml")):
        done = subprocess.run([need("promtool"), "check", "config", config], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 rule files found" in done.stdout
