"""Ports for endpoints of tests, which are chosen long before they are used."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

RANGE = range(30_000, 32_000)
"""Above those that Ray and Heliostat choose from, and below those that the system gives to connections."""


def free_port() -> int:
    """A port of the loopback that nothing listens on, nor takes by chance until it is used."""
    for port in random.sample(RANGE, len(RANGE)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all are taken")
