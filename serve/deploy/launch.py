"""Deploy published models as HTTP endpoints on the current Ray, list them, and remove them.

Call these inside `heliostat.cluster.session.session.session`, which starts or joins Ray with the right environment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat.infra import log
from heliostat.infra.errors import ConfigError, HeliostatError, ResourceError
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import keys_from_environment
from heliostat.serve.access.keys import read_keys
from heliostat.serve.access.usage import UsageLedger
from heliostat.serve.args import CANDIDATE_SUFFIX, AppArgs
from heliostat.serve.deploy.applications import (
    applications,
    deployed,
    health,
    kill_replicas,
    plain_url,
    remove,
    run,
    running_experiment,
    running_replicas,
    url_of,
    wait,
)
from heliostat.serve.deploy.experiment_ending import end as end_experiment
from heliostat.serve.deploy.experiment_ending import experiment_status
from heliostat.serve.deploy.ingress import listening, start_serve, stop_serve
from heliostat.serve.drift.window import DriftLedger
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.ledger import end_ledger
from heliostat.serve.models.adapter_check import check_adapters
from heliostat.serve.models.bundles import check_manifest

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

START_SECONDS = 300.0
RESTORE_SECONDS = 60.0
_log = log.get(__name__)


@dataclass(frozen=True)
class Endpoint:
    """A deployed model and its URL."""

    url: str
    """`http://host:port/route`; `url + "/v1"` is the base URL for clients of the OpenAI API."""
    name: str
    version: str


@dataclass(frozen=True)
class EndpointStatus:
    """Status of an application in Ray Serve."""

    name: str
    url: str
    status: str
    """RUNNING, DEPLOYING, DEPLOY_FAILED, UNHEALTHY, DELETING …"""
    replicas: int
    """Replicas that take requests."""
    version: str | None
    """The version that answers now; None if none does."""
    adapters: tuple[str, ...]
    """Adapters that are served with the model, with their versions: `legal@3`."""
    message: str

    @property
    def is_candidate(self) -> bool:
        """Whether it is the candidate of an experiment, which is removed along with its endpoint."""
        return self.name.endswith(CANDIDATE_SUFFIX)


def deploy(args: AppArgs, *, deadline_seconds: float = START_SECONDS) -> Endpoint:
    """Serves a published model and returns when it answers; replaces a model that runs under this name.

    Raises ConfigError if keys are missing, ModelError or IntegrityError if the model is not what was published,
    ResourceError if the port is taken or no replica is up within the deadline. A failure restores the previous state:
    the model that was served before, with its experiment, or nothing. A success ends the experiment.
    """
    args = args if args.config.auth == "none" else _with_keys(args)
    check_manifest(args.url, args.digest, args.storage.endpoint_url)
    check_adapters(args)
    until = time.monotonic() + deadline_seconds
    _check_same_tls(args)
    started_serve = start_serve(args.config)
    before = deployed(args.application)
    experiment = running_experiment(args.application) if before else None
    try:
        run(args)
        wait(args, until)
    except BaseException:
        _restore(args.application, before, experiment, shutdown=started_serve)
        raise
    if not args.is_candidate:
        end_experiment(args.name)
    config = args.config
    return Endpoint(url_of(config.host, config.port, args.route, config.tls), args.name, args.version)


def undeploy(name: str) -> None:
    """Removes an endpoint, and its candidate, after their ongoing requests; stops Serve if it was the last endpoint.

    Raises ConfigError if no endpoint has this name.
    """
    if deployed(name) is None:
        running = ", ".join(one.name for one in status()) or "none"
        raise ConfigError(f"{name}: no such endpoint; running: {running}")
    end_experiment(name.removesuffix(CANDIDATE_SUFFIX))
    _take_away(name, shutdown=set(applications()) == {name})
    for kind in (UsageLedger, DriftLedger):
        end_ledger(kind, name)


def status() -> list[EndpointStatus]:
    """Status of all endpoints on the current Ray, sorted by name."""
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
    stored = read_keys(open_store(args.storage))
    for reason in stored.damaged.values():
        _log.warning("keys: this one opens nothing: %s", reason)
    keys_from_environment(required=not keys and not stored.keys)
    return args.model_copy(update={"keys": keys})


def _restore(name: str, before: AppArgs | None, experiment: Experiment | None, *, shutdown: bool) -> None:
    """Undoes a failed deployment; replicas of the previous version were never stopped and are kept.

    Requests are split again as before, unless the experiment has ended in the meantime.
    """
    if before is None:
        kill_replicas(name)  # none has taken a request yet, so there is nothing to drain
        _take_away(name, shutdown=shutdown)
        return
    run(before, experiment if _is_running(name) else None)
    try:
        wait(before, time.monotonic() + RESTORE_SECONDS)
    except HeliostatError as error:
        _log.warning("%s: version %s is not up again: %s", name, before.version, error)


def _is_running(name: str) -> bool:
    """Whether the coordinator of an experiment is there, and sends requests to its candidate."""
    found = experiment_status(name)
    return found is not None and found.verdict is None


def _take_away(name: str, *, shutdown: bool) -> None:
    remove(name)
    if shutdown:
        stop_serve()


def _status(name: str, overview: ApplicationStatusOverview, args: AppArgs) -> EndpointStatus:
    address = listening()
    said = (health(plain_url(args)) if running_replicas(overview) else None) or {}  # a request would start one
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
