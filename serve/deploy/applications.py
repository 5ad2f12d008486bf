"""Ray Serve applications, one per model: deploy, wait, query and delete."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from heliostat.infra import errors
from heliostat.infra.config import strict as configuration
from heliostat.infra.errors import ConfigError, HeliostatError, ModelError, ResourceError
from heliostat.serve.app import DEPLOYMENT, application
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig, Tls, reachable
from heliostat.serve.deploy.ingress import CLOSE_SECONDS, POLL_SECONDS, STOP_SECONDS, quiet
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.replica.scaling import draining, resources

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

_ANY_ERROR = re.compile(r"[\w.]*(Error|Exception): ")
_OUR_ERROR = re.compile(r"heliostat\.infra\.errors\.(\w+): ([^\n]+)")


def applications() -> dict[str, ApplicationStatusOverview]:
    """Ray Serve's status of each application, by name; empty if Serve does not run."""
    from ray import serve

    return dict(serve.status().applications)


def deployed(name: str) -> AppArgs | None:
    """The args of a running application; None if there is none of this name or it is not one of ours."""
    overview = applications().get(name)
    if overview is None or DEPLOYMENT not in overview.deployments:
        return None
    from ray.serve.context import _get_global_client

    info, _ = _get_global_client().get_deployment_info(DEPLOYMENT, name)
    try:
        return configuration.build(AppArgs, info.replica_config.init_args[0])
    except (ConfigError, IndexError):
        return None


def run(args: AppArgs, experiment: Experiment | None = None) -> None:
    """Deploys or updates an application without waiting; raises ConfigError if its route is taken."""
    from ray.serve.api import RunTarget, run_many
    from ray.serve.exceptions import RayServeException

    try:
        with quiet():
            target = RunTarget(application(args, experiment), name=args.application, route_prefix=args.route)
            run_many([target], wait_for_applications_running=False)
    except (RayServeException, ValueError) as error:
        raise ConfigError(f"serve: {' '.join(str(error).split())}") from error


def running_experiment(name: str) -> Experiment | None:
    """The experiment that runs behind an application of ours; None if there is none."""
    from ray.serve.context import _get_global_client

    info, _ = _get_global_client().get_deployment_info(DEPLOYMENT, name)
    settings = info.deployment_config.user_config
    return configuration.build(Experiment, settings) if settings else None


def wait(args: AppArgs, until: float) -> None:
    """Waits until all replicas are up and the ingress, which learns of them a moment later, routes to them.

    Raises the replica's own error if the deployment failed, ResourceError after `until` (monotonic seconds).
    """
    url = plain_url(args)
    while True:
        overview = applications()[args.application]
        if overview.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise reason(overview)
        if overview.status == "RUNNING" and _is_up(args, health(url)):
            time.sleep(CLOSE_SECONDS)
            return
        if time.monotonic() > until:
            raise ResourceError(_too_late(args, overview))
        time.sleep(POLL_SECONDS)


def _is_up(args: AppArgs, said: dict[str, Any] | None) -> bool:
    """Whether `/health` was answered by a replica with exactly these versions."""
    adapters = {name: one.version for name, one in args.adapters.items()}
    return said is not None and said["version"] == args.version and said.get("adapters", {}) == adapters


def reason(overview: ApplicationStatusOverview) -> HeliostatError:
    """The replica's own error, in one line; Ray wraps it in its own message and a traceback."""
    text = "\n".join([overview.message, *(one.message for one in overview.deployments.values())])
    found = _OUR_ERROR.findall(text)
    if found:
        kind, line = found[-1]
        return getattr(errors, kind, ModelError)(line.strip())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = [line for line in lines if _ANY_ERROR.match(line)] or lines  # a message may have further lines
    return ModelError(f"the replica did not start: {last[-1] if last else 'no reason is known'}")


def _too_late(args: AppArgs, overview: ApplicationStatusOverview) -> str:
    import ray

    wants = ", ".join(f"{amount:g} {name[4:-1].upper()}" for name, amount in resources(args.config).items() if amount)
    free = ray.available_resources()
    has = f"{free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"
    up = running_replicas(overview)
    return (
        f"serve.replicas: {up} of {args.config.replicas.first} are up in time; a replica takes {wants} "
        f"(serve.cpus_per_replica, serve.gpus_per_replica), free are {has}"
    )


def running_replicas(overview: ApplicationStatusOverview) -> int:
    """The number of replicas that take requests."""
    deployment = overview.deployments.get(DEPLOYMENT)
    return deployment.replica_states.get("RUNNING", 0) if deployment else 0  # type: ignore[call-overload]


def kill_replicas(name: str) -> None:
    """Kills the replicas of an application without draining."""
    import ray

    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::{name}#"):
            with suppress(ValueError):  # it has ended since it was listed
                ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def remove(name: str) -> None:
    """Deletes an application after its ongoing requests. Idempotent; raises ResourceError if that takes too long."""
    from ray import serve

    if name not in applications():
        return
    args = deployed(name)
    seconds = draining(args.config if args else ServeConfig())["graceful_shutdown_timeout_s"] + STOP_SECONDS
    with quiet():
        serve.delete(name, _blocking=False)
    until = time.monotonic() + seconds
    while name in applications():
        if time.monotonic() > until:
            raise ResourceError(f"{name}: still there after {seconds:g} s, which its open requests had to finish")
        time.sleep(POLL_SECONDS)


def health(url: str) -> dict[str, Any] | None:
    """The body of `/health`; None if no endpoint of ours answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            found = json.load(response)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return found if isinstance(found, dict) and "version" in found else None


def url_of(host: str, port: int, route: str, tls: Tls | None = None) -> str:
    """The URL of an endpoint from this machine: HTTPS if `tls` is given, else HTTP."""
    address = f"https://{reachable(host)}:{tls.port}" if tls else f"http://{reachable(host)}:{port}"
    return f"{address}{'' if route == '/' else route}"


def plain_url(args: AppArgs) -> str:
    """The plain HTTP URL of an endpoint, reachable only from this machine if TLS is on."""
    return url_of("127.0.0.1" if args.config.tls else args.config.host, args.config.port, args.route)
