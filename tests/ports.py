"""Ports for endpoints of tests, which are chosen long before they are used."""

from __future__ import annotations

from heliostat.cluster.folders import free_ports

RANGE = range(30_000, 32_000)
"""Above those that Ray and Heliostat choose from, and below those that the system gives to connections."""


def free_port() -> int:
    """A port of the loopback that nothing listens on, nor takes by chance until it is used."""
    return free_ports(1, RANGE)[0]
