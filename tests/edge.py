"""The ingress without Ray: the configuration that Ray's code writes, our wrapper, the real HAProxy, fake replicas."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from heliostat.cluster.folders import free_ports
from heliostat.cluster.haproxy import ingress
from heliostat.cluster.haproxy.deadlines import Deadlines
from tests import fake_replica
from tests.waiting import until


@dataclass
class FakeReplica:
    """A running `fake_replica.py`."""

    port: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def requests(self) -> list[str]:
        """The beginnings of the bodies that it received."""
        return self.log.read_text().splitlines()


@dataclass
class Edge:
    """A running HAProxy in front of fake replicas of one application, at the route `/app`."""

    folder: Path
    replicas: list[FakeReplica]
    port: int
    metrics_port: int
    stats_port: int
    environment: Mapping[str, str]
    fallback: FakeReplica | None = None
    max_connections: int = 4096
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the application answers."""
        return f"http://127.0.0.1:{self.port}/app"

    @property
    def bodies(self) -> list[str]:
        """The beginnings of all bodies that replicas received."""
        asked = [*self.replicas, *([self.fallback] if self.fallback else [])]
        return [body for replica in asked for body in replica.requests]

    def client(self) -> httpx.Client:
        """A client of the application."""
        return httpx.Client(base_url=self.url, timeout=60)

    def reload(self) -> None:
        """Starts HAProxy, or one that replaces the one that runs, as Ray does at each change of replicas."""
        _write(self)
        command = [str(self.folder / "haproxy"), "-db", "-f", str(self.folder / "haproxy.cfg")]
        if self.processes:
            command += ["-sf", str(self.processes[-1].pid), "-x", str(self.folder / "admin.sock")]
        environment = {**os.environ, **self.environment}
        with (self.folder / "haproxy.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        until(lambda: self._pid() == self.processes[-1].pid, "HAProxy is the new one", seconds=30)

    def stop(self) -> None:
        """Ends HAProxy."""
        for process in self.processes:
            process.kill()
            process.wait()

    def _pid(self) -> int:
        assert self.processes[-1].poll() is None, (self.folder / "haproxy.log").read_text()
        with socket.socket(socket.AF_UNIX) as admin:
            if admin.connect_ex(str(self.folder / "admin.sock")):
                return -1
            admin.sendall(b"show info\n")
            said = b"".join(iter(lambda: admin.recv(4096), b"")).decode()
        return next((int(line[5:]) for line in said.splitlines() if line.startswith("Pid: ")), -1)


def _write(edge: Edge) -> None:
    """Writes the configuration by Ray's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Ray's own code
        from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
        from ray.serve.config import HTTPOptions

    running = [one for one in edge.replicas if one.process.poll() is None]
    servers = [ServerConfig(f"replica-{one.port}", "127.0.0.1", one.port) for one in running]
    backend = BackendConfig(name="http-app", path_prefix="/app", app_name="app", servers=servers)
    if edge.fallback:
        backend.fallback_server = ServerConfig("proxy", "127.0.0.1", edge.fallback.port)
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=edge.port),
        socket_path=str(edge.folder / "admin.sock"),
        server_state_base=str(edge.folder),
        server_state_file=str(edge.folder / "server-state"),
        metrics_socket_path=str(edge.folder / "metrics.sock"),
        metrics_port=edge.metrics_port,
        stats_port=edge.stats_port,
        retry_on=ingress.RECOVERY["RAY_SERVE_HAPROXY_RETRY_ON"],
        observe_error_limit=int(ingress.RECOVERY["RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT"]),
        bufsize=int(ingress.RECOVERY["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
        close_spread_time_s=1,
        timeout_client_s=int(ingress.DEADLINES["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]),
        hard_stop_after_s=int(ingress.DEADLINES["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]),
        health_check_inter=ingress.RECOVERY["RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"],
        maxconn=edge.max_connections,
        is_head=True,
        has_received_routes=True,
        enable_hap_optimization=True,
    )
    (edge.folder / "server-state").touch()
    api = HAProxyApi(config, {"http-app": backend}, str(edge.folder / "haproxy.cfg"))
    api._generate_config_file_internal()


@contextmanager
def replica(folder: Path, deadlines: Deadlines) -> Iterator[FakeReplica]:
    """Runs a fake replica whose spec has these deadlines."""
    [port] = free_ports(1)
    log = folder / f"replica-{port}.log"
    command = [sys.executable, "-IS", fake_replica.__file__, str(port), *map(str, deadlines)]
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, text=True) as process,
    ):
        try:
            until(lambda: _listens(port), "the replica listens", seconds=30)
            yield FakeReplica(port, process, log)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
    except httpx.HTTPError:
        return False
    return True


@contextmanager
def edge(
    replicas: int = 1,
    *,
    deadlines: Deadlines = Deadlines(60, 30),
    environment: Mapping[str, str] | None = None,
    has_fallback: bool = False,
    max_connections: int = 4096,
) -> Iterator[Edge]:
    """Runs it all in a folder with a path as short as sockets need; the fallback stands for Ray's own proxy."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir="/tmp", prefix="edge-")))
        binary = ingress.haproxy_binary()
        assert binary
        ingress.wrap(binary, folder / "haproxy")
        started = [stack.enter_context(replica(folder, deadlines)) for _ in range(replicas + has_fallback)]
        fallback = started.pop() if has_fallback else None
        port, metrics_port, stats_port = free_ports(3)
        settings = environment or {}
        found = Edge(folder, started, port, metrics_port, stats_port, settings, fallback, max_connections)
        stack.callback(found.stop)
        found.reload()
        yield found
