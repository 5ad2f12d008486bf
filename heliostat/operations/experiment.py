"""Implements `serve --canary`, `serve --ab`, `experiment` and `rollback`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.infra.storage.config import StorageConfig
from heliostat.pipeline import serve, sessions
from heliostat.spec import Spec
from heliostat.view.experiment import show_experiment_status
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion


def start_experiment(spec: Spec, reference: str | None, canary: float | None, ab: float | None, by: str | None) -> None:
    """Starts an experiment with a second version of a running endpoint; raises ConfigError for conflicting options."""
    from heliostat.serve.deploy.experiment_launch import start

    if (canary is None) == (ab is None):
        given = "neither --canary nor --ab" if canary is None else "--canary and --ab"
        raise ConfigError(f"serve: {given} given; one of them is needed to put a version beside another")
    percent, option = (canary, "--canary") if canary is not None else (ab, "--ab")
    if percent is None or not 0 < percent < 100:
        raise ConfigError(f"{option}: {percent:g} given; a percentage above 0 and below 100 is allowed")
    model = serve.resolve_model(spec, reference)
    with _running(spec):
        started = start(serve.app_args(spec, model), percent / 100, by=by, guarded=ab is None)
    view = View()
    view.say(f"version {started.candidate} answers {percent:g}% beside version {started.baseline}")
    view.say(f"look: heliostat experiment show {spec.name}; then promote or stop instead of show")


def show_experiment(name: str) -> None:
    """Prints the status of the running experiment, or the result of the last one."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.serve.deploy.experiment_ending import experiment_status, last_experiment_status

    found = None
    if find_address(ClusterConfig()):
        with _running():
            found = experiment_status(name)
    show_experiment_status(found or last_experiment_status(name, StorageConfig()), ended=found is None, view=View())


def promote_candidate(name: str) -> None:
    """Switches the endpoint to the candidate."""
    from heliostat.serve.deploy.experiment_launch import promote

    with _running():
        endpoint = promote(name)
    view, version = View(), endpoint.version
    view.say(f"{name} answers from version {version}; to keep it: heliostat models promote {name} {version}")


def stop_experiment(name: str) -> None:
    """Switches the endpoint back to the baseline; raises ConfigError if no experiment is running."""
    from heliostat.serve.deploy.experiment_ending import end

    with _running():
        found = end(name)
    if found is None:
        raise ConfigError(f"{name}: no experiment runs")
    show_experiment_status(found, ended=True, view=View())


def roll_back(name: str, version: int | None) -> None:
    """Serves an earlier version and makes it `production`; if one of the two fails, neither is changed."""
    from heliostat.serve.deploy.applications import deployed
    from heliostat.serve.deploy.launch import deploy

    with _running():
        args = deployed(name)
        if args is None:
            raise ConfigError(f"{name}: no such endpoint")
        rolled_back(
            args.storage,
            name,
            args.version,
            version,
            lambda to: deploy(args.model_copy(update={"url": to.url, "digest": to.digest, "version": str(to.version)})),
        )


def rolled_back(
    storage: StorageConfig, name: str, serving: str, version: int | None, serve: Callable[[ModelVersion], object]
) -> None:
    """Makes a version `production` and calls `serve` with it; if that fails, `production` is what it was.

    Without `version`, that is the production version if another one is `serving`, such as a promoted candidate; else
    the previous production version.
    """
    from heliostat.infra.registry import registry

    before = model = registry.resolve(storage, f"models:/{name}@{registry.PRODUCTION}")
    if version is not None:
        model = registry.promote(storage, name, version)
    elif serving == str(before.version):
        model = registry.rollback(storage, name)
    try:
        serve(model)
    except BaseException:
        registry.promote(storage, name, before.version)
        raise
    View().say(f"{name} answers from version {model.version} again, which is production")


@contextmanager
def _running(spec: Spec | None = None) -> Iterator[None]:
    """A session on the running Ray; raises ResourceError if there is none."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.cluster.session.session import session

    if find_address(spec.cluster if spec else ClusterConfig()) is None:
        raise ResourceError("nothing is running: no detached Ray of ours here, and RAY_ADDRESS is not set")
    with sessions.serving_session(spec) if spec else session(ClusterConfig(), cpus=0):
        yield
