"""A Ray on this machine: closed to others, measured, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import psutil  # type: ignore[import-untyped]
import pytest
import ray
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from heliostat.cluster import scrape
from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied
from heliostat.cluster.folders import free_ports
from heliostat.cluster.session.address import check_is_ray
from heliostat.cluster.session.leftovers import leftovers
from heliostat.cluster.session.session import logs_folder, session
from heliostat.infra.errors import ResourceError
from tests.waiting import until

TWO_CPUS = ClusterConfig(num_cpus=2)


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def local(home: Path) -> Iterator[None]:
    """A Ray of this process's own, of which nothing is left at the end."""
    before, others = ray_variables(), set(psutil.Process().children(recursive=True))
    with session(TWO_CPUS, cpus=2):
        started = set(psutil.Process().children(recursive=True))
        yield
        started |= set(psutil.Process().children(recursive=True))
    assert [one for one in started - others if one.is_running()] == []
    assert ray_variables() == before


def ray_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "PATH" or "RAY_" in name}


def listening(those: list[psutil.Process]) -> set[str]:
    """Hosts that the processes listen on."""
    return {host for host, _ in addresses(those)}


def addresses(those: list[psutil.Process]) -> set[tuple[str, int]]:
    """Hosts and ports that the processes listen on."""
    found = set()
    for process in those:
        try:
            sockets = process.net_connections()
        except psutil.Error:
            continue
        mine = [one.laddr for one in sockets if one.status == psutil.CONN_LISTEN]
        found |= {(address.ip.removeprefix("::ffff:"), address.port) for address in mine}
    return found


def name_of(process: psutil.Process) -> str:
    """Its name; empty where it has just ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.usefixtures("local")
def test_it_listens_on_the_loopback_only() -> None:
    assert listening(psutil.Process().children(recursive=True)) == {"127.0.0.1"}


@pytest.mark.usefixtures("local")
def test_it_leaves_the_port_of_agents_to_a_ray_that_takes_jobs() -> None:
    found = {port for _, port in addresses(psutil.Process().children(recursive=True))}
    assert found
    assert DEFAULT_DASHBOARD_AGENT_LISTEN_PORT not in found


def test_its_token_is_made_for_this_user_alone(local: None, home: Path) -> None:
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("local")
def test_it_refuses_who_has_no_token() -> None:
    address = ray.get_runtime_context().gcs_address
    check_is_ray(address)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with applied({"RAY_AUTH_TOKEN": "0" * 64}), pytest.raises(ResourceError, match="it refuses our token"):
        check_is_ray(address)


@pytest.mark.usefixtures("local")
def test_prometheus_finds_its_metrics() -> None:
    (target,) = scrape.metrics_targets()
    assert target in scrape.discovery_file().read_text()

    def scraped() -> bool:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as response:
            return b"ray_node_cpu_utilization{" in response.read()

    until(scraped, "metrics are scraped", 20)


@pytest.mark.usefixtures("local")
def test_what_is_alive_is_named_and_what_ended_is_not() -> None:
    class Trial:
        def answer(self) -> int:
            return 42

    assert leftovers() == []
    trial, group = (
        ray.remote(Trial).options(name="trial-7", num_cpus=1).remote(),
        ray.util.placement_group([{"CPU": 1}], name="gang-3"),
    )
    ray.get([trial.answer.remote(), group.ready()])
    assert leftovers() == ["actor trial-7", "placement group gang-3"]
    ray.kill(trial)
    ray.util.remove_placement_group(group)
    assert leftovers(patience_seconds=10) == []


@pytest.mark.usefixtures("local")
def test_a_session_within_it_checks_and_changes_nothing() -> None:
    with session(TWO_CPUS, cpus=2):
        assert ray.is_initialized()
    assert ray.is_initialized()
    with pytest.raises(ResourceError, match="3 CPUs needed, the Ray cluster has 2"), session(TWO_CPUS, cpus=3):
        pass


def test_output_of_workers_is_in_the_logs_and_not_on_the_terminal(
    local: None, capfd: pytest.CaptureFixture[str]
) -> None:
    @ray.remote
    def speak() -> None:
        os.write(1, b"heard from a worker\n")

    ray.get(speak.remote())

    def heard() -> bool:
        return any("heard from a worker" in file.read_text() for file in logs_folder().glob("worker-*.out"))

    until(heard, "the worker's output is in its log", 20)
    assert "heard from a worker" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("local")
def test_serve_is_behind_haproxy_on_the_loopback() -> None:
    from ray import serve

    class Hello:
        def __call__(self, request: object) -> str:
            return "hello"

    (port,) = free_ports(1)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(Hello, ray_actor_options={"num_cpus": 0.1}).bind(), name="hello", route_prefix="/hello")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=10) as response:
        assert response.read() == b"hello"
    proxies = [one for one in psutil.Process().children(recursive=True) if name_of(one) == "haproxy"]
    assert proxies
    assert listening(proxies) == {"127.0.0.1"}
    serve.shutdown()
    assert leftovers(patience_seconds=20) == []


def test_the_next_ray_of_a_process_knows_nothing_of_the_serve_before(home: Path) -> None:
    """In a process of its own, since the session of this module is up."""
    program = (
        "from ray import serve\n"
        "from heliostat.cluster.config import ClusterConfig\n"
        "from heliostat.cluster.session.session import session\n"
        "for _ in range(2):\n"
        "    with session(ClusterConfig(num_cpus=1), cpus=1):\n"
        "        from ray.serve.context import _get_global_client\n"
        "        assert _get_global_client(raise_if_no_controller_running=False) is None\n"
        "        serve.start(http_options={'location': 'NoServer'})\n"
        "        assert _get_global_client() is not None\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
