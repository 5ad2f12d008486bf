"""Put published models behind HTTP on the Ray in use, look at them, and take them away.

Call inside `heliostat.cluster.session.session`, which starts or joins Ray with the right environment.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliostat.infra import config as configuration
from heliostat.infra import errors, log
from heliostat.infra.errors import ConfigError, HeliostatError, ModelError, ResourceError
from heliostat.serve.app import DEPLOYMENT, AppArgs, build
from heliostat.serve.auth import keys_from_environment
from heliostat.serve.bundles import check_manifest
from heliostat.serve.config import ServeConfig
from heliostat.serve.scaling import DRAIN_SECONDS, resources

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview, HTTPOptionsSchema

START_SECONDS = 300.0
STOP_SECONDS = 30.0
INGRESS_SECONDS = 50.0
"""For the ingress to come up. Ray gives it five and then kills it, which a busy machine may not meet."""
RESTORE_SECONDS = 60.0
POLL_SECONDS = 0.2
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OUR_ERROR = re.compile(r"heliostat\.infra\.errors\.(\w+): ([^\n]+)")
_log = log.get(__name__)


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers."""

    url: str
    """`http://host:port/route`; `url + "/v1"` is the base URL for clients of the OpenAI API."""
    name: str
    version: str


@dataclass(frozen=True)
class EndpointStatus:
    """An application as Ray Serve sees it."""

    name: str
    url: str
    status: str
    """RUNNING, DEPLOYING, DEPLOY_FAILED, UNHEALTHY, DELETING …"""
    replicas: int
    """Replicas that take requests."""
    version: str | None
    """The version that answers at this moment; None where nothing does."""
    message: str


def deploy(args: AppArgs, *, deadline_seconds: float = START_SECONDS) -> Endpoint:
    """Serves a published model and returns once it answers; a model that runs under this name is replaced.

    Raises ConfigError where keys are missing, ModelError or IntegrityError where the model is not what was published,
    ResourceError where the port is taken or no replica is up within the deadline. After a failure all is as it was
    before: a model that was served still is, and one that was not leaves nothing.
    """
    args = args if args.config.auth == "none" else _with_keys(args)
    check_manifest(args.url, args.digest, args.storage.endpoint_url)
    until = time.monotonic() + deadline_seconds
    started_serve = _start_serve(args.config)
    before = _deployed(args.name)
    try:
        _run(args)
        _wait(args, until)
    except BaseException:
        _restore(args.name, before, shutdown=started_serve)
        raise
    return Endpoint(_url(args.config.host, args.config.port, args.route), args.name, args.version)


def undeploy(name: str) -> None:
    """Takes an endpoint away once its open requests are answered; with the last one, Serve itself ends.

    Raises ConfigError where no endpoint has this name.
    """
    running = _applications()
    if name not in running:
        raise ConfigError(f"{name}: no such endpoint; running: {', '.join(sorted(running)) or 'none'}")
    _take_away(name, shutdown=set(running) == {name})


def status() -> list[EndpointStatus]:
    """All endpoints on the Ray in use, by name."""
    applications = _applications()
    if not applications:
        return []
    return [_status(name, overview) for name, overview in sorted(applications.items())]


def _with_keys(args: AppArgs) -> AppArgs:
    keys = args.keys or keys_from_environment(required=True)
    return args.model_copy(update={"keys": keys})


def _deployed(name: str) -> AppArgs | None:
    """What an application was built from; None where there is none of this name."""
    if name not in _applications():
        return None
    from ray.serve.context import _get_global_client

    info, _ = _get_global_client().get_deployment_info(DEPLOYMENT, name)
    return configuration.build(AppArgs, info.replica_config.init_args[0])


def _restore(name: str, before: AppArgs | None, *, shutdown: bool) -> None:
    """Undoes a deployment that failed; replicas of the one before, which never stopped, are kept."""
    if before is None:
        _kill_replicas(name)  # none has answered a request, so none has to drain
        _take_away(name, shutdown=shutdown)
        return
    _run(before)
    try:
        _wait(before, time.monotonic() + RESTORE_SECONDS)
    except HeliostatError as error:
        _log.warning("%s: version %s is not up again: %s", name, before.version, error)


def _kill_replicas(name: str) -> None:
    import ray

    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::{name}#"):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def _start_serve(config: ServeConfig) -> bool:
    """Starts Serve where there is none; True where it did. ResourceError where it cannot listen as the spec says."""
    from ray import serve
    from ray.exceptions import RayError

    listening = _listening()
    if listening is not None:
        if (listening.port, listening.host) != (config.port, config.host):
            raise ResourceError(
                f"serve.port: {config.host}:{config.port} given; Serve on this Ray already listens on "
                f"{listening.host}:{listening.port}, and one Ray has one address"
            )
        return False
    _check_port(config)
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        _log.warning("RAY_SERVE_ENABLE_HA_PROXY is not 1: Serve uses its own proxy, which is several times slower")
    try:
        with _quiet():
            serve.start(
                http_options={"host": config.host, "port": config.port},
                proxy_location="HeadOnly" if config.host in LOOPBACK else "EveryNode",
                logging_config={"log_level": "WARNING", "enable_access_log": False},
                controller_options={"runtime_env": {"env_vars": _controller_environment(config)}},
            )
    except (RayError, TimeoutError) as error:
        _shutdown_serve()
        raise ResourceError(f"Ray Serve did not start: {str(error).splitlines()[0]}") from error
    return True


def _controller_environment(config: ServeConfig) -> dict[str, str]:
    """What Serve's controller reads when it starts, and hands on to proxies and replicas."""
    environment = {
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(INGRESS_SECONDS),
    }
    if config.host in LOOPBACK:
        # Of all Serve's ports, this is the one that two Rays on one machine would both want.
        environment["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(_free_port())
    return {name: os.environ.get(name, value) for name, value in environment.items()}


def _check_port(config: ServeConfig) -> None:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ResourceError(
                f"serve.port: {config.port} given; {config.host}:{config.port} cannot be listened on "
                f"({error.strerror}); choose a free port between 1 and 65535"
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening() -> HTTPOptionsSchema | None:
    """How the Serve on this Ray listens; None where there is none."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config


def _applications() -> dict[str, ApplicationStatusOverview]:
    from ray import serve

    return dict(serve.status().applications)


def _run(args: AppArgs) -> None:
    from ray.serve.api import RunTarget, run_many
    from ray.serve.exceptions import RayServeException

    try:
        with _quiet():
            target = RunTarget(build(args), name=args.name, route_prefix=args.route)
            run_many([target], wait_for_applications_running=False)
    except (RayServeException, ValueError) as error:
        raise ConfigError(f"serve: {' '.join(str(error).split())}") from error


def _wait(args: AppArgs, until: float) -> None:
    """Until all replicas are up and the ingress, which learns of them a moment later, reaches one."""
    url = _url(args.config.host, args.config.port, args.route)
    while True:
        overview = _applications()[args.name]
        if overview.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise _reason(overview)
        if overview.status == "RUNNING" and (_health(url) or {}).get("version") == args.version:
            return
        if time.monotonic() > until:
            raise ResourceError(_too_late(args, overview))
        time.sleep(POLL_SECONDS)


def _reason(overview: ApplicationStatusOverview) -> HeliostatError:
    """What the replica itself said, in one line; Ray wraps it in its own words and a traceback."""
    text = "\n".join([overview.message, *(one.message for one in overview.deployments.values())])
    found = _OUR_ERROR.findall(text)
    if found:
        kind, line = found[-1]
        return getattr(errors, kind, ModelError)(line.strip())
    last = [line.strip() for line in text.splitlines() if line.strip()]
    return ModelError(f"the replica did not start: {last[-1] if last else 'no reason is known'}")


def _too_late(args: AppArgs, overview: ApplicationStatusOverview) -> str:
    import ray

    wants = ", ".join(f"{amount:g} {name[4:].upper()}" for name, amount in resources(args.config).items() if amount)
    free = ray.available_resources()
    has = f"{free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"
    up = _running_replicas(overview)
    return (
        f"serve.replicas: {up} of {args.config.replicas.min} are up in time; a replica takes {wants} "
        f"(serve.cpus_per_replica, serve.gpus_per_replica), free are {has}"
    )


def _running_replicas(overview: ApplicationStatusOverview) -> int:
    deployment = overview.deployments.get(DEPLOYMENT)
    return deployment.replica_states.get("RUNNING", 0) if deployment else 0  # type: ignore[call-overload]


def _health(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            found = json.load(response)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return found if isinstance(found, dict) and "version" in found else None


def _url(host: str, port: int, route: str) -> str:
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{reachable}:{port}{'' if route == '/' else route}"


def _status(name: str, overview: ApplicationStatusOverview) -> EndpointStatus:
    listening, args = _listening(), _deployed(name)
    url = _url(listening.host or "", listening.port, args.route) if listening and args else ""
    return EndpointStatus(
        name,
        url,
        str(overview.status.value),
        _running_replicas(overview),
        (_health(url) or {}).get("version"),
        " ".join(overview.message.split()),
    )


def _take_away(name: str, *, shutdown: bool) -> None:
    from ray import serve

    with _quiet():
        if name in _applications():
            serve.delete(name)
        if shutdown:
            _shutdown_serve()


def _shutdown_serve() -> None:
    """Ends Serve. Its own `shutdown` waits inside the actor that is to end, of which Ray complains on the terminal."""
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Serve tells its developers on the terminal; warnings still come."""
    import logging

    logger = logging.getLogger("ray.serve")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
