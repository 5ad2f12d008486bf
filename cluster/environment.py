"""Environment variables of Ray: for one on this machine, and for a driver that joins one.

Ray reads them when it starts, from the environment of the process that starts it, so they are set there for the length
of the session and restored afterwards.
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

# Ray replaces a given loopback address by the machine's own, unless multi-machine clusters are switched off, as they
# are by default on macOS. This is that switch; it has the same effect on Linux.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""A process of each training run that waits until a node is drained, which a machine alone never is."""


@contextmanager
def applied(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables (None removes one) and restores the previous values afterwards."""
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
    """Renews Ray's copies of some variables, which it makes when it is imported."""
    if "ray" not in sys.modules:
        return
    from ray._private import ray_constants

    core = import_module("ray._raylet")  # compiled; its type stubs leave these out
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
    default = "1" if sys.platform == "linux" else "0"
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(SEVERAL_MACHINES, default) == "1"


def local_environment() -> dict[str, str | None]:
    """Variables for a Ray on this machine: loopback only, a token, HAProxy in front of Serve, no usage reports."""
    return {
        **_defaults(),
        **token_environment(create=True),
        **ingress_environment(),
        SEVERAL_MACHINES: "0",
        _WATCHER: os.environ.get(_WATCHER, "0"),
        "PATH": path_from_our_python(),
    }


def joining_environment(address: str) -> dict[str, str | None]:
    """Variables for a driver that joins the Ray at `address`."""
    on_loopback = {SEVERAL_MACHINES: "0"} if is_loopback(address) else {}
    return {**token_environment(create=False), "RAY_TRAIN_V2_ENABLED": "1", **on_loopback}


def is_loopback(address: str) -> bool:
    """Whether `host:port` is on the loopback interface."""
    return address.rpartition(":")[0] in (LOOPBACK, "localhost", "[::1]")


def _defaults() -> dict[str, str | None]:
    """Defaults, which the user's own settings override."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default, without its warning
        "RAY_metrics_report_interval_ms": "5000",  # as often as they are scraped; Ray's 10 s would show stale values
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
