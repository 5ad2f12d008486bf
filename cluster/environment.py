"""The environment variables of a Ray: of one on this machine, and of a driver that joins one.

Ray reads them when it starts, from the environment of the process that starts it, so they are set there for as long as
the session lasts and put back afterwards.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module

from heliostat.cluster.folders import LOOPBACK, path_from_our_python
from heliostat.cluster.haproxy.ingress import ingress_environment
from heliostat.cluster.tokens import token_environment

# Ray turns a loopback address that it is given into the machine's own, except where clusters of several machines are
# switched off, as they are by default on macOS. This is that switch; it has the same effect on Linux.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


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

    core = import_module("ray._raylet")  # compiled; its type stubs leave these out
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
    default = "1" if sys.platform == "linux" else "0"
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(SEVERAL_MACHINES, default) == "1"


def local_environment() -> dict[str, str | None]:
    """The variables of a Ray on this machine: loopback only, a token, HAProxy in front of Serve, no usage report."""
    return {
        **_defaults(),
        **token_environment(create=True),
        **ingress_environment(),
        SEVERAL_MACHINES: "0",
        "PATH": path_from_our_python(),
    }


def joining_environment(address: str) -> dict[str, str | None]:
    """The variables of a driver that joins the Ray at `address`."""
    on_loopback = {SEVERAL_MACHINES: "0"} if is_loopback(address) else {}
    return {**token_environment(create=False), "RAY_TRAIN_V2_ENABLED": "1", **on_loopback}


def is_loopback(address: str) -> bool:
    """Whether `host:port` is on this machine's own loopback."""
    return address.rpartition(":")[0] in (LOOPBACK, "localhost", "[::1]")


def _defaults() -> dict[str, str | None]:
    """Settings that the user's own win over."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself, with a warning until then
        "RAY_metrics_report_interval_ms": "5000",  # as often as they are scraped; Ray's 10 s would show stale values
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
