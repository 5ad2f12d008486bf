"""Whether traces go anywhere: OpenTelemetry's own variables, of which its SDK reads the rest. Imports none of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
TRACEPARENT = "TRACEPARENT"
"""The span that a process's work is a part of, for a job that is submitted."""
VARIABLES = (
    *ENDPOINTS,
    *PROTOCOLS,
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)
"""What is passed on. OTEL_EXPORTER_OTLP_HEADERS is not: it holds credentials, and the cluster has its own."""


def variables() -> dict[str, str]:
    """The variables above that are set here, for processes that do not inherit this environment."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def is_on(environment: Mapping[str, str]) -> bool:
    """Whether an endpoint is set and nothing switches traces off."""
    given = {name: environment.get(name, "").strip().lower() for name in VARIABLES}
    is_off = (
        given["OTEL_SDK_DISABLED"] == "true"
        or given["OTEL_TRACES_EXPORTER"] == "none"
        or given["OTEL_TRACES_SAMPLER"] == "always_off"
    )
    return any(given[name] for name in ENDPOINTS) and not is_off


def unknown_protocol(environment: Mapping[str, str]) -> str:
    """One line about a protocol that is not spoken; empty without one."""
    name = next((one for one in PROTOCOLS if environment.get(one, "").strip()), "")
    given = environment.get(name, "").strip()
    return f"{name}: {given!r} given; allowed: {PROTOCOL}" if name and given.lower() != PROTOCOL else ""
