"""Start and stop Ray Serve, and check its addresses."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heliostat.cluster.folders import free_ports, why_taken
from heliostat.cluster.haproxy.ingress import haproxy_binary, is_wanted
from heliostat.cluster.haproxy.wrapper import TLS_CERTIFICATE, TLS_PORT
from heliostat.infra import log
from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.infra.tracing import settings as traces
from heliostat.serve.config import LOOPBACK, ServeConfig, Tls, reachable
from heliostat.serve.replica.ingress import ingress_variables
from heliostat.serve.replica.scaling import DRAIN_SECONDS

if TYPE_CHECKING:
    from ray.serve.schema import HTTPOptionsSchema

STOP_SECONDS = 30.0
START_SECONDS = 50.0
"""Time for the ingress to start. Ray allows 5 s and then kills it, which can be too short on a busy machine."""
CONTROL_SECONDS = 0.25
"""Interval of the Serve controller's control loop. Ray's default of 0.1 s costs a laptop 6% of a core."""
POLL_SECONDS = 0.2
CLOSE_SECONDS = 1
"""Time in which HAProxy closes idle client connections after new routes. By default, Ray keeps them for minutes with
the old routes: new endpoints are not found, and requests go to replicas that a rollout has removed."""


def start_serve(config: ServeConfig) -> bool:
    """Starts Serve if it does not run; returns whether it did. Raises ResourceError if it cannot listen as given."""
    from ray import serve
    from ray.exceptions import RayError

    address = listening()
    if address is not None:
        if (address.port, address.host) != (config.port, config.host):
            raise ResourceError(
                f"serve.port: {config.host}:{config.port} given; Serve on this Ray already listens on "
                f"{address.host}:{address.port}, and one Ray has one address"
            )
        check_answers_with_tls(config)
        return False
    check_port(config.host, config.port, "serve.port")
    if config.tls:
        check_tls(config.tls)
        check_port(config.host, config.tls.port, "serve.tls.port")
    try:
        with quiet():
            serve.start(
                http_options={"host": config.host, "port": config.port},
                proxy_location="HeadOnly" if config.host in LOOPBACK else "EveryNode",
                logging_config={"log_level": "WARNING", "enable_access_log": False},
                controller_options={"runtime_env": {"env_vars": _controller_environment(config)}},
            )
    except (RayError, TimeoutError) as error:
        stop_serve()
        raise ResourceError(f"Ray Serve did not start: {str(error).splitlines()[0]}") from error
    try:
        check_answers_with_tls(config)
    except ResourceError:
        stop_serve()
        raise
    return True


def stop_serve() -> None:
    """Stops Serve. Ray's own `shutdown` waits inside the actor that it stops, and prints errors about it."""
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client, _set_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    controller = client._controller
    ray.get(controller.graceful_shutdown.remote(wait=False))
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until:
        try:
            ray.get(controller.check_alive.remote())
        except ray.exceptions.RayActorError:
            _set_global_client(None)
            return
        time.sleep(POLL_SECONDS)
    serve.shutdown()


def listening() -> HTTPOptionsSchema | None:
    """The HTTP options of the running Serve; None if it does not run."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config


def check_port(host: str, port: int, key: str) -> None:
    """Raises ResourceError if nothing can listen on this address."""
    if reason := why_taken(host, port):
        raise ResourceError(
            f"{key}: {port} given; {host}:{port} cannot be listened on "
            f"({reason}); choose a free port between 1 and 65535"
        )


def check_tls(tls: Tls) -> None:
    """Raises ConfigError if the file is not a certificate with its key, or if HAProxy is not available."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"serve.tls.certificate: {tls.certificate} given, which cannot be used ({error}); a PEM file with a "
            "certificate and its private key, which has no password, is needed"
        ) from None
    if not (is_wanted() and haproxy_binary()):
        raise ConfigError("serve.tls: given; it needs HAProxy, which is not here or switched off")


def check_answers_with_tls(config: ServeConfig) -> None:
    """Raises ResourceError if a TLS connection to the configured port gets no certificate."""
    until = time.monotonic() + START_SECONDS
    while config.tls:
        try:
            ssl.get_server_certificate((reachable(config.host), config.tls.port), timeout=5)
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ResourceError(
                    f"serve.tls.port: {config.tls.port} given; nothing answers there with TLS ({error}): Serve runs "
                    "without HAProxy here, or with one that is not ours"
                ) from None
            time.sleep(POLL_SECONDS)


def _controller_environment(config: ServeConfig) -> dict[str, str]:
    """Environment of Serve's controller, which proxies and replicas inherit."""
    environment = {
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_SECONDS),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_SECONDS),
        "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S": str(CLOSE_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(START_SECONDS),
    }
    if config.host in LOOPBACK:
        # Of all of Serve's ports, only this fixed one would conflict between two Rays on one machine.
        environment["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(free_ports(1)[0])
    if config.tls:
        environment[TLS_CERTIFICATE], environment[TLS_PORT] = config.tls.certificate, str(config.tls.port)
    return {name: os.environ.get(name, value) for name, value in environment.items()} | (
        ingress_variables(config) | log.variables() | traces.variables()
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hides Serve's informational log lines; warnings are still shown."""
    logger = logging.getLogger("ray.serve")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
