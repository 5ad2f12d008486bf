"""What HAProxy is set to by its environment, and what all of its settings are where nothing is said.

It imports only the standard library, since the wrapper, which Ray starts at each change of replicas, imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEADER_SECONDS_VARIABLE = "HELIOSTAT_INGRESS_HEADER_SECONDS"
SOURCE_VARIABLE = "HELIOSTAT_INGRESS_MAX_CONNECTIONS_PER_SOURCE"
CONNECTIONS_VARIABLE = "RAY_SERVE_HAPROXY_MAXCONN"
HARD_STOP_VARIABLE = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"

HEADER_SECONDS = 10.0
MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_PER_SOURCE = 1024

REPLAYED_BYTES = 64 * 1024
"""Longest request, headers included, that can be retried on another replica. HAProxy holds two buffers of this size per
active connection."""
BODY_SECONDS = 30.0
"""How long a client may take to send the body that HAProxy waits for."""
CLIENT_SECONDS = 60
"""How long a client may neither send what it has begun nor take what it is sent."""
CHECK_SECONDS = 5
"""How long a replica may take to answer a health check: it may be busy, and counts as gone after two."""
MARGIN_SECONDS = 5.0
"""What the ingress waits for a replica beyond the longest answer: the replica itself says first that it is late."""
START_SECONDS = 300.0
"""How long a request may wait for a replica to start, where none is up."""
LONGEST_SECONDS = 3600.0
"""Longest answer (`serve.timeout_seconds`) that no change of replicas cuts, on any Ray of ours."""
RAYS_HARD_STOP_SECONDS = 120
"""Ray's own value of HARD_STOP_VARIABLE: answers of an HAProxy that was replaced are cut after this time."""


def hard_stop_seconds(answer_seconds: float) -> int:
    """For HARD_STOP_VARIABLE, so that no answer is cut that takes no longer than this and LONGEST_SECONDS allow."""
    return int(START_SECONDS + max(answer_seconds, LONGEST_SECONDS) + 2 * MARGIN_SECONDS)


def longest_seconds(hard_stop: int) -> float:
    """The longest answer that a HARD_STOP_VARIABLE of `hard_stop` does not cut."""
    return hard_stop - 2 * MARGIN_SECONDS


@dataclass(frozen=True)
class Limits:
    """What clients may hold of the address."""

    header_seconds: float = HEADER_SECONDS
    connections_per_source: int = MAX_CONNECTIONS_PER_SOURCE

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Limits:
        """The limits in HAProxy's environment."""
        return cls(
            float(environment.get(HEADER_SECONDS_VARIABLE, HEADER_SECONDS)),
            int(environment.get(SOURCE_VARIABLE, MAX_CONNECTIONS_PER_SOURCE)),
        )
