"""`heliostat deploy` and `destroy`: what was rendered, on a Kubernetes cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from heliostat.cluster.deploy import remove, wait
from heliostat.cluster.deploy.answers import ask
from heliostat.cluster.deploy.api import Api, Reference
from heliostat.cluster.deploy.apply import Applied, apply
from heliostat.cluster.deploy.checks import check
from heliostat.cluster.deploy.contexts import connect
from heliostat.cluster.deploy.joblog import JobLog
from heliostat.cluster.deploy.states import State
from heliostat.cluster.kubernetes import refusals
from heliostat.cluster.kubernetes.build import Manifest, build
from heliostat.infra.errors import ConfigError, KubernetesError
from heliostat.operations.kubernetes import registry_of
from heliostat.operations.render import Request, render
from heliostat.spec import Spec
from heliostat.view.terminal import View

PLATFORM = "platform"
PARTS = ("cluster", "train", "serve", "monitoring")
COMPONENT = "app.kubernetes.io/component"
TAKEN_BACK = ("RayService", "RayCluster", "RayJob")
"""What a first deployment that fails leaves behind, and that would go on asking for pods."""


def deploy(
    spec: Spec, request: Request, out: Path, parts: Sequence[str], api: Api, seconds: float, over: Path | None = None
) -> None:
    """Renders into `out`, applies the platform and the parts, and waits until all runs and answers.

    `over` is a kustomization of the user's own which takes in `out`, and is applied in its place.

    Raises ConfigError and KubernetesError before anything is changed for what can be known; KubernetesError, after
    taking back what it made new, for what does not come up in time.
    """
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"--part: {part!r} given; {', '.join(PARTS)} is allowed")
    view = View()
    with registry_of(api, wanted=request.is_served):
        render(spec, request, out, form="kustomize", shows=False, force=False)
    objects = build(over or out)
    refusals.check(objects)
    wanted = [one for one in objects if _part(one) in (PLATFORM, *parts)]
    view.say(f"{api.context}, namespace {api.namespace}: {len(wanted)} objects of {', '.join((PLATFORM, *parts))}")
    check(api, wanted, view.say)
    bring_up(api, wanted, seconds, view.say)


def _part(manifest: Manifest) -> str:
    """What an object belongs to; the user's own to the platform, unless it is labelled."""
    return str(manifest["metadata"].get("labels", {}).get(COMPONENT, PLATFORM))


def bring_up(
    api: Api,
    manifests: list[Manifest],
    seconds: float,
    say: Callable[[str], None],
    answers: Callable[[Api, Manifest], State] = ask,
) -> None:
    """Applies the objects and waits for them; `answers` asks an endpoint. Raises KubernetesError as `deploy` does."""
    done = Applied()
    try:
        apply(api, manifests, done)
        say(f"{len(done.created)} created, {len(done.changed)} changed, {len(done.unchanged)} as they were")
        references = [*done.created, *done.changed, *done.unchanged]
        logs = [JobLog(api, one.name, say) for one in references if one.kind == "RayJob"]
        wait.wait(api, references, seconds, say, lambda found: answers(api, found), lambda: _each(logs))
    except KubernetesError as error:
        raise KubernetesError(f"{error}{_take_back(api, done.created, say)}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what was applied goes on; look: heliostat status --context {api.context} --namespace {api.namespace}"
        ) from None
    if done.without_effect:
        raise KubernetesError(f"taken by Kubernetes, and without effect: {'; '.join(done.without_effect)}")


def destroy(api: Api, name: str | None, *, volumes: bool, sure: bool, seconds: float) -> None:
    """Takes one endpoint away, or all that was deployed into the namespace; volumes only where asked for.

    Asks first, unless `sure`. Raises KubernetesError if nothing is there, nobody says yes, or it does not end in time.
    """
    view = View()
    all_of_it = remove.ours(api, with_volumes=volumes)
    found = [one for one in all_of_it if name is None or (one.kind, one.name) == ("RayService", name)]
    if not found:
        what = f"no endpoint {name}" if name else "nothing of Heliostat's"
        raise KubernetesError(f"{api.context}, namespace {api.namespace}: {what}")
    question = f"{api.context}, namespace {api.namespace}: end {', '.join(map(str, found))}?"
    if not (sure or (sys.stdin.isatty() and typer.confirm(question))):
        raise KubernetesError(f"nothing is ended: {question} --yes says so")
    remove.remove(api, found, seconds, view.say)
    kept = [] if volumes or name else remove.volumes(api)
    if kept:
        view.say(f"{', '.join(map(str, kept))} stay, with their data; --volumes takes them too")
    view.say("gone")


def reach(context: str | None, namespace: str | None) -> Api:
    """The namespace that is meant; asks on a terminal where no context is named."""
    return connect(context, namespace, typer.confirm if sys.stdin.isatty() else None)


def _take_back(api: Api, created: Sequence[Reference], say: Callable[[str], None]) -> str:
    """Deletes what runs of what is new, and says what stays."""
    back = [one for one in created if one.kind in TAKEN_BACK and _asks_for_pods(api, one)]
    for one in reversed(back):
        try:
            api.delete(one)
            say(f"{one}: taken back")
        except KubernetesError as error:
            say(f"{one}: stays, it could not be taken back: {error}")
    stays = sum(one.kind not in TAKEN_BACK for one in created)
    return f"; the platform's {stays} new objects stay, heliostat destroy takes them" if stays else ""


def _asks_for_pods(api: Api, reference: Reference) -> bool:
    """False for a job that has begun or ended: its cluster goes by itself, and its logs and status tell why."""
    try:
        found = api.get(reference)
    except KubernetesError:
        return True
    return found is not None and (reference.kind != "RayJob" or wait.state_of(api, found).phase == "waits")


def _each(logs: Sequence[JobLog]) -> None:
    for log in logs:
        log()
