"""A Ray that outlives its command: found, joined, given jobs, stopped."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import ray
from ray.dashboard.modules.dashboard_sdk import SubmissionClient

from heliostat.cluster import jobs, package
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied, joining_environment
from heliostat.cluster.folders import ray_folder
from heliostat.cluster.monitor.services import discovery_files
from heliostat.cluster.scrape import DISCOVERY
from heliostat.cluster.session import processes
from heliostat.cluster.session.address import drivers
from heliostat.cluster.session.detached import ClusterRecord, find_detached, start_detached, stop_detached
from heliostat.cluster.session.leftovers import leftovers
from heliostat.cluster.session.session import session
from heliostat.infra.alerts.ray_names import ACTIVE_NODES, NODE_CPUS
from heliostat.infra.errors import ConfigError, NotFoundError, ResourceError
from tests.waiting import until

# What a job sees of the package: where it comes from, whether its folders are links, whether the recipes are there.
LOOK = """
import os, pathlib, sys
import heliostat, heliostat.cluster.session.session
folder = pathlib.Path(heliostat.__file__).parent
print("package", folder, (folder / "cluster").is_symlink(), (folder / "recipes").is_dir())
print("python", sys.executable)
print("files", sorted(os.listdir(".")), os.environ["WHO"], os.environ["RAY_ADDRESS"])
"""


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[ClusterRecord]:
    """A detached Ray, of which nothing is left once it is stopped."""
    record = start_detached(ClusterConfig(num_cpus=2))
    yield record
    family = processes.family(record.mark)
    targets = ray_folder() / DISCOVERY
    until(targets.is_symlink, "Ray lists what to scrape", 60)
    assert stop_detached() is True
    assert not targets.is_symlink(), "Prometheus would go on to ask, and to tell, of its nodes"
    assert [one for one in family if one.is_running()] == processes.family(record.mark) == []
    assert find_detached() is None
    with socket.socket() as probe:
        host, _, port = record.address.rpartition(":")
        assert probe.connect_ex((host, int(port))) != 0


def test_it_is_found_and_started_once(cluster: ClusterRecord, home: Path) -> None:
    assert find_detached() == cluster
    assert start_detached(ClusterConfig()) == cluster
    assert not list(home.glob("**/ray_current_cluster.*"))


def test_its_autoscaler_tells_how_many_nodes_there_are(cluster: ClusterRecord) -> None:
    """The alert on nodes that are not scraped compares it with those that are."""
    targets = ray_folder() / DISCOVERY

    def exposed() -> str:
        agent = json.loads(targets.read_text())[0]["targets"][0]
        with urllib.request.urlopen(f"http://{agent}/metrics", timeout=30) as answer:
            return str(answer.read(), "utf-8")

    until(targets.exists, "Ray lists what to scrape", 60)
    until(lambda: ACTIVE_NODES in (text := exposed()) and NODE_CPUS in text, "nodes are counted", 60)


def test_the_monitor_reads_its_list_of_agents_which_it_keeps_itself(cluster: ClusterRecord) -> None:
    assert discovery_files() == [ray_folder() / DISCOVERY]
    until(lambda: "127.0.0.1:" in (ray_folder() / DISCOVERY).read_text(), "the list of agents", 30)


def test_it_listens_on_the_loopback_only(cluster: ClusterRecord) -> None:
    hosts = set()
    for process in processes.family(cluster.mark):
        try:
            sockets = process.net_connections()
        except psutil.Error:
            continue
        hosts |= {one.laddr.ip.removeprefix("::ffff:") for one in sockets if one.status == psutil.CONN_LISTEN}
    assert hosts == {"127.0.0.1"}


def test_a_command_joins_it_leaves_it_running_and_takes_its_actors_along(cluster: ClusterRecord) -> None:
    class Worker:
        def answer(self) -> int:
            return 42

    with session(ClusterConfig(), cpus=1):
        assert ray.get_runtime_context().gcs_address == cluster.address
        assert [f"process {os.getpid()}" in driver for driver in drivers(cluster.address)] == [True]
        worker = ray.remote(Worker).options(name="mine").remote()
        assert ray.get(worker.answer.remote()) == 42
        assert leftovers() == ["actor mine"]
    with session(ClusterConfig(), cpus=1):
        assert leftovers(patience_seconds=10) == []
    with applied(joining_environment(cluster.address)):
        until(lambda: drivers(cluster.address) == [], "the end of both drivers", 30)
    assert find_detached() == cluster


def test_it_is_not_joined_for_more_than_it_has(cluster: ClusterRecord) -> None:
    with pytest.raises(ResourceError, match="3 CPUs needed, the Ray cluster has 2"), session(ClusterConfig(), cpus=3):
        pass
    assert not ray.is_initialized()


def test_who_has_another_token_or_none_is_refused(cluster: ClusterRecord, tmp_path: Path) -> None:
    with applied({"RAY_AUTH_TOKEN": "0" * 64}):
        with pytest.raises(ResourceError, match="it refuses our token"), session(ClusterConfig(), cpus=1):
            pass
        refused = f"{cluster.dashboard_url}: it refuses our token: the one in RAY_AUTH_TOKEN is not the cluster's"
        with pytest.raises(ResourceError, match=refused):
            jobs.submit(cluster.dashboard_url, "true")
    nowhere = {"RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": None, "HOME": str(tmp_path)}
    missing = f"{cluster.dashboard_url}: it refuses our token: there is none in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or"
    with applied(nowhere), pytest.raises(ResourceError, match=missing):
        jobs.submit(cluster.dashboard_url, "true")
    with applied({"RAY_AUTH_MODE": "disabled"}), pytest.raises(ResourceError, match="it refuses our token"):
        jobs.submit(cluster.dashboard_url, "true")


def test_a_job_from_a_checkout_runs_its_package(cluster: ClusterRecord, tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    url = jobs.default_address()
    assert url == cluster.dashboard_url
    elsewhere = {"WHO": "me", "PATH": "/usr/bin:/bin"}  # whose Python, if there is one, has no Ray
    with jobs.environment({"look.py": tmp_path / "look.py"}, elsewhere) as environment:
        job = jobs.submit(url, jobs.python_command("look.py"), environment)
    output = "".join(jobs.follow(url, job))
    assert (ended := jobs.find(url, job)).status == "SUCCEEDED", ended.message
    (found,) = [line.split() for line in output.splitlines() if line.startswith("package ")]
    assert "py_modules_files" in found[1]
    assert Path(found[1]) != package.checkout()
    assert found[2:] == ["False", "True"]
    assert f"python {sys.executable}" in output
    assert f"files ['.rayignore', 'look.py'] me {cluster.address}" in output
    assert jobs.logs(url, job) == output


def test_what_the_cluster_has_does_not_travel_again(
    cluster: ClusterRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    upload = SubmissionClient._upload_package

    def note(self: SubmissionClient, uri: str, *more: Any, **options: Any) -> None:
        sent.append(uri)
        upload(self, uri, *more, **options)

    monkeypatch.setattr(SubmissionClient, "_upload_package", note)
    with jobs.environment() as environment:
        jobs.submit(cluster.dashboard_url, "true", environment)  # the code is there
    (tmp_path / "rows.csv").write_text("of this test\n")
    for expected in (1, 0):
        sent.clear()
        with jobs.environment({"data/rows.csv": tmp_path / "rows.csv"}) as environment:
            job = jobs.submit(cluster.dashboard_url, "cat data/rows.csv", environment)
        assert len(sent) == expected
        assert "of this test\n" in "".join(jobs.follow(cluster.dashboard_url, job))


def test_a_job_has_an_id_of_its_own_can_be_stopped_and_an_unknown_one_is_one_line(cluster: ClusterRecord) -> None:
    url = cluster.dashboard_url
    job = jobs.submit(url, "echo begun; sleep 600", job="sleeper")
    assert job == "sleeper"
    with pytest.raises(ConfigError, match=f"--id: sleeper given, and {url} has a job of that ID: (pending|running)"):
        jobs.submit(url, "true", job="sleeper")
    assert "begun" in next(text for text in jobs.follow(url, job) if "begun" in text)
    assert jobs.stop(url, job) is True
    assert jobs.wait(url, job).status == "STOPPED"
    for ask in (jobs.find, jobs.stop, jobs.logs, jobs.wait, lambda *of: list(jobs.follow(*of))):
        with pytest.raises(NotFoundError, match=f"{url}: no job nothing"):
            ask(url, "nothing")
