"""Put published models behind HTTP on the Ray in use, look at them, and take them away.

Call inside `heliostat.cluster.session.session.session`, which starts or joins Ray with the right environment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat.infra import log
from heliostat.infra.errors import ConfigError, HeliostatError, ResourceError
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import keys_from_environment
from heliostat.serve.access.keys import list_keys
from heliostat.serve.args import CANDIDATE_SUFFIX, AppArgs
from heliostat.serve.deploy.applications import (
    applications,
    deployed,
    health,
    kill_replicas,
    plain_url,
    remove,
    run,
    running_replicas,
    url_of,
    wait,
)
from heliostat.serve.deploy.experiment_ending import end as end_experiment
from heliostat.serve.deploy.ingress import listening, start_serve, stop_serve
from heliostat.serve.models.adapter_check import check_adapters
from heliostat.serve.models.bundles import check_manifest

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

START_SECONDS = 300.0
RESTORE_SECONDS = 60.0
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
    adapters: tuple[str, ...]
    """Those that answer by name beside it, each with its version: `legal@3`."""
    message: str

    @property
    def is_candidate(self) -> bool:
        """Whether it stands beside another one, in an experiment; it goes when that one goes."""
        return self.name.endswith(CANDIDATE_SUFFIX)


def deploy(args: AppArgs, *, deadline_seconds: float = START_SECONDS) -> Endpoint:
    """Serves a published model and returns once it answers; a model that runs under this name is replaced.

    Raises ConfigError where keys are missing, ModelError or IntegrityError where the model is not what was published,
    ResourceError where the port is taken or no replica is up within the deadline. After a failure all is as it was
    before: a model that was served still is, and one that was not leaves nothing.
    """
    args = args if args.config.auth == "none" else _with_keys(args)
    check_manifest(args.url, args.digest, args.storage.endpoint_url)
    check_adapters(args)
    until = time.monotonic() + deadline_seconds
    _check_same_tls(args)
    started_serve = start_serve(args.config)
    before = deployed(args.application)
    try:
        run(args)
        wait(args, until)
    except BaseException:
        _restore(args.application, before, shutdown=started_serve)
        raise
    if not args.is_candidate:
        end_experiment(args.name)
    config = args.config
    return Endpoint(url_of(config.host, config.port, args.route, config.tls), args.name, args.version)


def undeploy(name: str) -> None:
    """Takes an endpoint away once its open requests are answered, and its candidate; with the last one, Serve ends.

    Raises ConfigError where no endpoint has this name.
    """
    if deployed(name) is None:
        running = ", ".join(one.name for one in status()) or "none"
        raise ConfigError(f"{name}: no such endpoint; running: {running}")
    end_experiment(name.removesuffix(CANDIDATE_SUFFIX))
    _take_away(name, shutdown=set(applications()) == {name})


def status() -> list[EndpointStatus]:
    """All endpoints on the Ray in use, by name."""
    found = [(name, overview, deployed(name)) for name, overview in sorted(applications().items())]
    return [_status(name, overview, args) for name, overview, args in found if args is not None]


def _check_same_tls(args: AppArgs) -> None:
    for name in applications():
        other = deployed(name)
        if other and other.application != args.application and other.config.tls != args.config.tls:
            given, has = (str(tls) if tls else "none" for tls in (args.config.tls, other.config.tls))
            raise ResourceError(f"serve.tls: {given} given; {name} runs with {has}, and one Ray has one address")


def _with_keys(args: AppArgs) -> AppArgs:
    keys = args.keys or keys_from_environment(required=False)
    keys_from_environment(required=not keys and not list_keys(open_store(args.storage)))
    return args.model_copy(update={"keys": keys})


def _restore(name: str, before: AppArgs | None, *, shutdown: bool) -> None:
    """Undoes a deployment that failed; replicas of the one before, which never stopped, are kept."""
    if before is None:
        kill_replicas(name)  # none has answered a request, so none has to drain
        _take_away(name, shutdown=shutdown)
        return
    run(before)
    try:
        wait(before, time.monotonic() + RESTORE_SECONDS)
    except HeliostatError as error:
        _log.warning("%s: version %s is not up again: %s", name, before.version, error)


def _take_away(name: str, *, shutdown: bool) -> None:
    remove(name)
    if shutdown:
        stop_serve()


def _status(name: str, overview: ApplicationStatusOverview, args: AppArgs) -> EndpointStatus:
    address = listening()
    said = (health(plain_url(args)) if running_replicas(overview) else None) or {}  # a question would start one
    url = url_of(address.host or "", address.port, args.route, args.config.tls) if address else ""
    return EndpointStatus(
        name,
        url,
        str(overview.status.value),
        running_replicas(overview),
        said.get("version"),
        tuple(f"{name}@{version}" for name, version in said.get("adapters", {}).items()),
        " ".join(overview.message.split()),
    )
