from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.environment import applied
from heliostat.cluster.folders import free_ports
from heliostat.cluster.session import address
from heliostat.infra.errors import ConfigError, ResourceError


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(address, "ANSWER_SECONDS", 0.5)
    with applied({"RAY_AUTH_TOKEN": "a token"}):
        yield


@pytest.fixture
def web_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_spec_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address.find_address(ClusterConfig()) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address.find_address(ClusterConfig()) == "10.0.0.1:6379"
    assert address.find_address(ClusterConfig(address="10.0.0.2:6379")) == "10.0.0.2:6379"
    assert address.find_address(ClusterConfig(address="local")) is None


@pytest.mark.parametrize("given", ["head", "head:", ":6379", "head:ray", "head:0", "head:65536", "ray://head:10001"])
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.address: {given} given; host:port, auto or local is allowed"):
        address.find_address(ClusterConfig(address=given))


def test_a_dashboard_address_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS: .*heliostat submit --address http://head:8265"):
        address.find_address(ClusterConfig())


def test_ipv6() -> None:
    assert address.split_address("[::1]:6379", "key") == ("::1", 6379)


def test_no_listener_is_told_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(ResourceError, match=r"Ray at 127.0.0.1:\d+: nothing answers there \(Connection refused\)"):
        address.check_is_ray(f"127.0.0.1:{free_ports(1)[0]}")
    assert time.monotonic() - start < 2


def test_a_listener_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(ResourceError, match="something answers there, but not as Ray does"):
            address.check_is_ray(f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - start < 3


def test_another_service_is_told_from_ray(web_server: str) -> None:
    with pytest.raises(ResourceError, match=f"Ray at {web_server}: something answers there, but not as Ray does"):
        address.check_is_ray(web_server)


def test_a_machine_without_a_token_is_told_where_one_is_looked_for(web_server: str, tmp_path: Path) -> None:
    nowhere = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": None, "HOME": str(tmp_path)}
    said = f"^Ray at {web_server}: there is no token here; .* RAY_AUTH_TOKEN"
    with applied(nowhere), pytest.raises(ResourceError, match=said):
        address.check_is_ray(web_server)


def test_a_cluster_of_other_machines_is_not_joined(monkeypatch: pytest.MonkeyPatch, web_server: str) -> None:
    monkeypatch.setattr(address, "_nodes", lambda _: [])
    with pytest.raises(ResourceError, match=r"this machine is not one of its nodes; .* heliostat submit"):
        address.check_is_ray(web_server)
