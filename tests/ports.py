"""Ports for endpoints of tests, which are chosen long before they are used."""

from __future__ import annotations

import os

from heliostat.cluster.folders import free_ports

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
RANGE = range(30_000, 32_000)[WORKER::WORKERS]
"""Above those that Ray and Heliostat choose from, and below those that the system gives to connections; those of one
worker of pytest-xdist, as ports are chosen long before they are used."""


def free_port() -> int:
    """A port of the loopback that nothing listens on, nor takes by chance until it is used."""
    return free_ports(1, RANGE)[0]
