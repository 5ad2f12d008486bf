"""Implements `serve`, `status` and `stop`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from heliostat.infra.errors import ResourceError
from heliostat.pipeline import serve, sessions
from heliostat.spec import Spec
from heliostat.view.terminal import View


@contextmanager
def detached(spec: Spec, wanted: bool = True) -> Iterator[None]:
    """Starts a local Ray that keeps running, if `wanted` and no cluster is configured; stops it if the block fails."""
    from heliostat.cluster.session.detached import find_detached, start_detached, stop_detached

    if not wanted or spec.cluster.address or os.environ.get("RAY_ADDRESS") or find_detached():
        yield
        return
    start_detached(spec.cluster)
    try:
        yield
    except BaseException:
        stop_detached()
        raise


def serve_until_stopped(spec: Spec, reference: str | None, detach: bool) -> None:
    """Deploys the model; then returns if the cluster keeps running, else waits for Ctrl-C."""
    from heliostat.cluster.session.address import find_address
    from heliostat.serve.deploy.launch import undeploy
    from heliostat.serve.models.adapter_check import check_adapters

    view, args = View(), serve.app_args(spec, serve.resolve_model(spec, reference))
    check_adapters(args)
    with detached(spec, detach):
        stays = find_address(spec.cluster) is not None
        with sessions.serving_session(spec):
            serve.run(args, view)
            if stays:
                view.say("look: heliostat status; end: heliostat stop " + spec.name)
                return
            view.say("Ctrl-C ends it; heliostat serve --detach leaves it running")
            try:
                signal.pause()
            finally:
                undeploy(spec.name)


def _confirm(address: str) -> None:
    """Asks whether to end a Ray that other commands use; raises ResourceError if the answer is no or nobody is there.

    A Ray that does not answer is ended without a question.
    """
    from heliostat.cluster.environment import applied, joining_environment
    from heliostat.cluster.session.address import drivers

    try:
        with applied(joining_environment(address)):
            others = ", ".join(drivers(address))
    except ResourceError:
        return
    if others and not (sys.stdin.isatty() and typer.confirm(f"{others} is at work on this Ray. End it too?")):
        raise ResourceError(f"stop: nothing is ended: {others} is at work on the Ray here; --yes ends it too")


def show_status() -> None:
    """Prints what Heliostat runs in the local Ray, or in the cluster that RAY_ADDRESS names."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.cluster.session.leftovers import leftovers
    from heliostat.cluster.session.session import session
    from heliostat.serve.deploy.launch import status

    view, config = View(), ClusterConfig()
    address = find_address(config)
    if address is None:
        view.say("nothing is running: no detached Ray of ours on this machine, and RAY_ADDRESS is not set")
        return
    with session(config, cpus=0):
        view.say(f"Ray at {address}")
        view.table(
            "Endpoints",
            ["name", "version", "adapters", "status", "replicas", "url"],
            [[one.name, one.version, ", ".join(one.adapters), one.status, one.replicas, one.url] for one in status()],
        )
        view.table("Actors and placement groups", ["what"], [[name] for name in leftovers()])


def stop_serving(name: str | None, sure: bool) -> None:
    """Stops one endpoint; without `name`, all of them and the detached Ray on this machine.

    Asks first, unless `sure`, if another command is at work on that Ray.
    """
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.cluster.session.detached import find_detached, stop_detached
    from heliostat.cluster.session.session import session
    from heliostat.serve.deploy.launch import status, undeploy

    view, record = View(), find_detached()
    if name is None and record and not os.environ.get("RAY_ADDRESS"):
        if not sure:
            _confirm(record.address)
        stop_detached()
        view.say(f"ended the Ray at {record.address} with all that ran on it")
        return
    if find_address(ClusterConfig()) is None:
        raise ResourceError("stop: nothing is running: no detached Ray of ours here, and RAY_ADDRESS is not set")
    with session(ClusterConfig(), cpus=0):
        names = [name] if name else [one.name for one in status() if not one.is_candidate]
        for one in names:
            undeploy(one)
        view.say(f"ended {', '.join(names) or 'nothing'}; open requests were finished first")
