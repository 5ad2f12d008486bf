"""What the ingress of a Ray must be set to for an endpoint, and whether it is. Pure functions.

Ray gives proxies and replicas one environment, that of Serve's controller, so that a replica knows what HAProxy was
started with: by `heliostat`, by an image, or by a Ray that is neither's.
"""

from __future__ import annotations

from collections.abc import Mapping

from heliostat.cluster.haproxy.settings import (
    CONNECTIONS_VARIABLE,
    HARD_STOP_VARIABLE,
    HEADER_SECONDS,
    HEADER_SECONDS_VARIABLE,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_SOURCE,
    RAYS_HARD_STOP_SECONDS,
    SOURCE_VARIABLE,
    hard_stop_seconds,
    longest_seconds,
)
from heliostat.infra.errors import ConfigError
from heliostat.serve.config import Ingress, ServeConfig

_VARIABLES = {
    "header_seconds": (HEADER_SECONDS_VARIABLE, HEADER_SECONDS),
    "max_connections": (CONNECTIONS_VARIABLE, MAX_CONNECTIONS),
    "max_connections_per_source": (SOURCE_VARIABLE, MAX_CONNECTIONS_PER_SOURCE),
}
"""By key of `serve.ingress`: its environment variable, and what holds where that is not set."""


def ingress_variables(config: ServeConfig) -> dict[str, str]:
    """The environment of an ingress that does what the spec says."""
    limits = {variable: str(getattr(config.ingress, key)) for key, (variable, _) in _VARIABLES.items()}
    return {**limits, HARD_STOP_VARIABLE: str(hard_stop_seconds(config.timeout_seconds))}


def check_ingress(config: ServeConfig, environment: Mapping[str, str]) -> None:
    """Raises ConfigError if the ingress was started for other limits, or ends answers before the spec does."""
    if environment.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return
    for key in Ingress.model_fields:
        variable, default = _VARIABLES[key]
        given, has = getattr(config.ingress, key), float(environment.get(variable, default))
        if given != has:
            raise ConfigError(
                f"serve.ingress.{key}: {given:g} given; the address of this Ray was started with {has:g} ({variable}), "
                "and all of its endpoints share it: give the same, or stop them all first"
            )
    longest = longest_seconds(int(environment.get(HARD_STOP_VARIABLE, RAYS_HARD_STOP_SECONDS)))
    if config.timeout_seconds > longest:
        raise ConfigError(
            f"serve.timeout_seconds: {config.timeout_seconds:g} given; at most {longest:g} is allowed on this Ray, "
            f"whose ingress cuts longer answers when replicas change ({HARD_STOP_VARIABLE})"
        )
