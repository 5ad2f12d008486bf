"""A Ray that outlives its command: found, joined, given jobs (a run and an endpoint among them), stopped."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import ray
import yaml
from ray.dashboard.modules.dashboard_sdk import SubmissionClient

from heliostat.cluster import jobs, package
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied, joining_environment
from heliostat.cluster.folders import ray_folder
from heliostat.cluster.job_client import connected as _client
from heliostat.cluster.monitor.services import discovery_files
from heliostat.cluster.scrape import DISCOVERY
from heliostat.cluster.session import processes
from heliostat.cluster.session.address import drivers
from heliostat.cluster.session.detached import ClusterRecord, find_detached, start_detached, stop_detached
from heliostat.cluster.session.leftovers import leftovers
from heliostat.cluster.session.session import session
from heliostat.infra.alerts.ray_names import ACTIVE_NODES, NODE_CPUS
from heliostat.infra.errors import ConfigError, NotFoundError, ResourceError
from heliostat.serve.deploy.applications import kill_replicas
from tests.certificates import write_certificate
from tests.ports import free_port
from tests.proxy import proxy
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
        try:
            with urllib.request.urlopen(f"http://{agent}/metrics", timeout=30) as answer:
                return str(answer.read(), "utf-8")
        except OSError:  # it is listed a moment before it listens
            return ""

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

    def counted(self: SubmissionClient, uri: str, *rest: Any, **more: Any) -> Any:
        sent.append(uri)
        return upload(self, uri, *rest, **more)

    monkeypatch.setattr(SubmissionClient, "_upload_package", counted)
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


SECRETS = {"AWS_SECRET_ACCESS_KEY": "a-secret-of-storage", "HELIOSTAT_API_KEYS": "a-secret-of-endpoints"}
NO_SERVER = {"MLFLOW_TRACKING_URI": None, "HELIOSTAT_STORAGE": None}


@dataclass(frozen=True)
class Project:
    """A folder with a spec and its files, and what `submit` of it has shown."""

    folder: Path
    storage: Path
    screen: str = ""

    def heliostat(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "heliostat", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with its output in a pipe."""
        with applied({**SECRETS, **NO_SERVER}):
            return subprocess.run(
                self.heliostat(*arguments), cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
            )


@pytest.fixture(scope="module")
def project(tiny_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The data and the base model of the spec are beside it, so they travel."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_values["model"]["source"], folder / "encoder")
    shutil.copy(tiny_values["data"]["source"], folder / "rows.csv")
    train = {**tiny_values["train"], "workers": 1, "zero_stage": 0, "epochs": 10, "checkpoint_every": 20}
    own = {"model": {"source": "./encoder"}, "train": train, "storage": {"url": str(folder / "storage")}}
    data = {"data": {**tiny_values["data"], "source": "./rows.csv"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**tiny_values, **own, **data}))
    return Project(folder, folder / "storage")


def command_of(process: psutil.Process) -> list[str]:
    """Its words; none where it has just ended, as Ray's idle workers do."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def trained(project: Project, cluster: ClusterRecord) -> Project:
    """`heliostat submit train` in a terminal; its driver is killed after the first checkpoint, and tried again."""
    master, slave = pty.openpty()
    submit = project.heliostat("submit", "train", "tiny.yaml", "--id", "nightly", "--retries", "1")
    with applied({**SECRETS, **NO_SERVER, "COLUMNS": "160", "TERM": "xterm"}):
        process = subprocess.Popen(submit, cwd=project.folder, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen: list[str] = []
    reader = threading.Thread(target=_read, args=(master, screen))
    reader.start()
    until(lambda: any(project.storage.glob("runs/tiny/*/checkpoints/latest.json")), "a checkpoint", 300)
    (driver,) = [one for one in processes.family(cluster.mark) if command_of(one)[1:5] == DRIVER]
    driver.kill()
    code = process.wait(600)
    reader.join()
    os.close(master)
    assert code == 0, "".join(screen)[-3000:]
    return replace(project, screen="".join(screen))


DRIVER = ["-m", "heliostat", "train", "spec.yaml"]


def _read(terminal: int, screen: list[str]) -> None:
    with suppress(OSError):  # EIO: the command has ended
        while data := os.read(terminal, 65536):
            screen.append(data.decode(errors="replace"))


def test_training_as_a_job_looks_as_it_does_here_and_ends_with_the_version(trained: Project) -> None:
    assert re.search(r"train: loss \d\.\d+, .* samples/s", trained.screen), "the bar"
    assert re.search(r"  step \d+: validation loss", trained.screen)
    assert '"progress"' not in trained.screen
    assert "Running entrypoint" not in trained.screen
    assert "job_manager.py" not in trained.screen
    end = trained.screen.partition("Published tiny")[2]
    assert re.search(r"version +1 ", end)
    assert re.search(r"aliases +production ", end)
    address = re.search(r"job nightly on (http://\S+);", trained.screen)
    assert address is not None
    assert f"next: heliostat submit serve tiny.yaml --address {address[1]}" in end


def test_a_run_whose_driver_was_killed_goes_on_after_its_checkpoint(trained: Project) -> None:
    first, again, second = trained.screen.partition("it is submitted again")
    assert again
    assert "job nightly: failed" in first
    assert "job nightly-2 on" in second
    (run,) = trained.storage.glob("runs/tiny/*/run.json")
    assert json.loads(run.read_text())["status"] == "finished"
    steps = [int(step) for step in re.findall(r"step (\d+): validation", second)]
    assert 20 < min(steps) <= max(steps) == 200, "a run from its beginning validates after step 20"


def test_what_a_job_prints_is_kept_without_its_bars(trained: Project) -> None:
    done = trained.run("jobs", "logs", "nightly-2")
    assert done.returncode == 0
    assert "Running entrypoint for job nightly-2" in done.stdout
    assert "Published tiny" in done.stdout
    assert '"progress"' not in done.stdout


def test_no_secret_is_in_the_record_of_a_job(trained: Project, cluster: ClusterRecord) -> None:
    with _client(cluster.dashboard_url) as client:
        record = client._do_request("GET", "/api/jobs/").text
    assert "nightly-2" in record
    secrets = [*SECRETS.values(), Path(os.environ["HOME"], ".ray", "auth_token").read_text()]
    assert not [secret for secret in secrets if secret in record or secret in trained.screen]


@pytest.mark.faults
def test_serving_as_a_job_ends_with_an_endpoint_that_stays_or_with_nothing(trained: Project) -> None:
    port = f"serve.port={free_port()}"
    refused = trained.run("submit", "serve", "tiny.yaml", port)
    assert refused.returncode != 0
    assert "HELIOSTAT_API_KEYS" in refused.stdout, "the credentials here do not travel: the cluster has its own"
    assert "tiny" not in trained.run("status").stdout.partition("Endpoints")[2].partition("Actors")[0]

    done = trained.run("submit", "serve", "tiny.yaml", port, "serve.auth=none")
    assert done.returncode == 0, done.stdout + done.stderr
    url = re.search(r"tiny version 1 answers at (http://\S+)", done.stdout)
    assert url is not None
    assert predicted(url[1]) == "positive"
    with session(ClusterConfig(), cpus=0):
        before = replicas()
        kill_replicas("tiny")  # the next one needs the code that came with a job which has ended
        until(lambda: replicas() - before and predicted(url[1]) == "positive", "a new replica", 120)
    assert trained.run("stop", "tiny").returncode == 0


def replicas() -> set[str]:
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["name"].startswith("SERVE_REPLICA::tiny#")}


def predicted(url: str) -> str:
    """The label of a text; empty where nothing answers."""
    request = urllib.request.Request(
        f"{url}/v1/predict", b'{"text": "the film was superb"}', {"Content-Type": "application/json"}
    )
    with suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["predictions"][0]["label"])
    return ""


def test_a_cluster_behind_tls_is_reached_with_its_ca_and_refused_without(
    cluster: ClusterRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    certificate = write_certificate(tmp_path / "ca.pem")
    with proxy(int(cluster.dashboard_url.rpartition(":")[2]), certificate) as front:
        url = f"https://127.0.0.1:{front.port}"
        with pytest.raises(ResourceError, match=f"{url}: its certificate is not trusted .* in SSL_CERT_FILE"):
            jobs.submit(url, "true")
        plain = cluster.dashboard_url.replace("http", "https")
        with pytest.raises(ResourceError, match=f"{plain}: it does not speak TLS"):
            jobs.submit(plain, "true")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        job = jobs.submit(url, "echo through TLS")
        assert "through TLS" in "".join(jobs.follow(url, job))


def test_output_goes_on_where_it_was_after_a_connection_breaks(cluster: ClusterRecord) -> None:
    with proxy(int(cluster.dashboard_url.rpartition(":")[2])) as front:
        url, seen = f"http://127.0.0.1:{front.port}", ""
        job = jobs.submit(url, "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done")
        for text in jobs.follow(url, job):
            if "line 1" in text:
                assert front.break_connections() > 0
            seen += text
        assert [line for line in seen.splitlines() if line.startswith("line")] == [f"line {i}" for i in range(1, 7)]
