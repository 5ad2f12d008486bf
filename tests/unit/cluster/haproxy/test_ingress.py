from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from heliostat.cluster.folders import free_ports
from heliostat.cluster.haproxy import ingress, wrapper
from tests.certificates import write_certificate
from tests.waiting import until

CONFIG = """\
defaults
    mode http
frontend http_frontend
    bind *:8000
"""
SERVER = """\
defaults
    mode http
    timeout client 5s
    timeout connect 5s
    timeout server 5s
frontend http_frontend
    bind 0.0.0.0:{port}
    # Health check endpoint
    acl healthcheck path -i /-/healthz
    http-request return status 200 content-type text/plain string good
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path as short as sockets need, in place of the user's own."""
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    with TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(ingress, "user_folder", lambda base: Path(folder))
        yield Path(folder)


def test_ray_starts_haproxy_with_the_configuration_that_we_adapted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = folder / "fake"
    fake.write_text('#!/bin/sh\necho "$0" "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(fake))
    environment = {name: value or "" for name, value in ingress.ingress_environment().items()}
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG)
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config), "-sf", "17"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{fake} -db -f {config} -sf 17\n"
    assert config.read_text() == wrapper.adapted(CONFIG, environment, {}, folder / "refused.map")


def test_with_tls_the_plain_port_is_closed_to_others(folder: Path) -> None:
    """With the real HAProxy, on the machine's own address and on the loopback."""
    binary, (plain, secure) = ingress.haproxy_binary(), free_ports(2)
    assert binary
    own = socket.gethostbyname(socket.gethostname())
    config, certificate = folder / "haproxy.cfg", write_certificate(folder / "server.pem")
    config.write_text(SERVER.format(port=plain))
    environment = {wrapper.TLS_PORT: str(secure), wrapper.TLS_CERTIFICATE: str(certificate)}
    program = ingress.wrap(binary, folder / "program")
    with subprocess.Popen([program, "-db", "-f", str(config)], env={**os.environ, **environment}) as process:
        try:
            until(lambda: answers("127.0.0.1", plain), "HAProxy listens", 10)
            trust = ssl.create_default_context(cafile=str(certificate))
            answer = httpx.post(f"https://127.0.0.1:{secure}", verify=trust, content=b"{}")
            assert (answer.status_code, answer.text) == (200, "good")
            assert httpx.get(f"http://127.0.0.1:{plain}").text == "good"
            assert not answers(own, plain) or own.startswith("127.")
            assert answers(own, secure)
        finally:
            process.terminate()


def answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_two_rays_get_ports_of_their_own() -> None:
    one, other = ingress.ingress_environment(), ingress.ingress_environment()
    for name in ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"):
        assert one[name] != other[name]


def test_two_installations_of_a_user_have_programs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs its own wrapper, and a Ray inside a Ray that of the outer one."""
    one = ingress.ingress_environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert one == ingress.ingress_environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    monkeypatch.setattr(ingress, "_ROOT", Path("/elsewhere"))
    other = ingress.ingress_environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert other != one
    assert "/elsewhere" in Path(str(other)).read_text()
    assert "/elsewhere" not in Path(str(one)).read_text()
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(one))
    assert ingress.ingress_environment()["RAY_SERVE_HAPROXY_BINARY_PATH"] == one


def test_sockets_of_haproxy_are_closed_to_others_and_short_enough(folder: Path) -> None:
    path = Path(ingress.ingress_environment()["RAY_SERVE_HAPROXY_SOCKET_PATH"] or "")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len("/tmp/heliostat-4294967294/ha") + len(f"/{'0' * 56}/{path.name}") <= 97


def test_the_user_may_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    assert ingress.ingress_environment() == {}


def test_without_haproxy_serve_keeps_its_own_proxy_and_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ingress, "haproxy_binary", lambda: None)
    assert ingress.ingress_environment() == {}
    assert "no HAProxy here" in capsys.readouterr().err


def test_what_dead_proxies_left_goes_and_living_ones_stay(folder: Path) -> None:
    dead, alive, young = (folder / "ha" / name for name in ("dead", "alive", "young"))
    for one in (dead, alive, young):
        one.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(alive / "admin.sock"))
        server.listen()
        for one in (dead, alive):
            os.utime(one, (0, 0))
        ingress.delete_old_haproxy_folders()
    assert {one.name for one in (folder / "ha").iterdir()} == {"alive", "young"}
