"""What `serve --canary`, `serve --ab`, `experiment` and `rollback` do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.infra.storage.config import StorageConfig
from heliostat.pipeline import train
from heliostat.serve.experiment.stats import ALPHA, Arm, Difference
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.serve.experiment.coordinator import Standing

QUANTILES = (0.5, 0.95, 0.99)


def start_beside(spec: Spec, reference: str | None, canary: float | None, ab: float | None, by: str | None) -> None:
    """Puts a version beside the one that runs. ConfigError for options that do not go together."""
    from heliostat.serve.deploy.experiment_launch import start

    if (canary is None) == (ab is None):
        given = "neither --canary nor --ab" if canary is None else "--canary and --ab"
        raise ConfigError(f"serve: {given} given; one of them is needed to put a version beside another")
    percent, option = (canary, "--canary") if canary is not None else (ab, "--ab")
    if percent is None or not 0 < percent < 100:
        raise ConfigError(f"{option}: {percent:g} given; a percentage above 0 and below 100 is allowed")
    model = train.resolve_model(spec, reference)
    with _running(spec):
        started = start(train.app_args(spec, model), percent / 100, by=by, guarded=ab is None)
    view = View()
    view.say(f"version {started.candidate} answers {percent:g}% beside version {started.baseline}")
    view.say(f"look: heliostat experiment show {spec.name}; then promote or stop instead of show")


def show_experiment(name: str) -> None:
    """Prints how the running experiment stands, or how the last one ended."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.serve.deploy.experiment_ending import last_standing, standing

    found = None
    if find_address(ClusterConfig()):
        with _running():
            found = standing(name)
    show_standing(found or last_standing(name, StorageConfig()), ended=found is None, view=View())


def promote_candidate(name: str) -> None:
    """Rolls to the candidate."""
    from heliostat.serve.deploy.experiment_launch import promote

    with _running():
        endpoint = promote(name)
    view, version = View(), endpoint.version
    view.say(f"{name} answers from version {version}; to keep it: heliostat models promote {name} {version}")


def stop_experiment(name: str) -> None:
    """Rolls back to the baseline; ConfigError where no experiment runs."""
    from heliostat.serve.deploy.experiment_ending import end

    with _running():
        found = end(name)
    if found is None:
        raise ConfigError(f"{name}: no experiment runs")
    show_standing(found, ended=True, view=View())


def roll_back(name: str, version: int | None) -> None:
    """Serves an earlier version and lets `production` point to it; neither where one of them fails.

    Without `version` that is production where another one is served, such as a candidate that took over, and else the
    one that was production before.
    """
    from heliostat.infra.registry import registry
    from heliostat.serve.deploy.applications import deployed
    from heliostat.serve.deploy.launch import deploy

    with _running():
        args = deployed(name)
        if args is None:
            raise ConfigError(f"{name}: no such endpoint")
        before = model = registry.resolve(args.storage, f"models:/{name}@{registry.PRODUCTION}")
        if version is not None:
            model = registry.promote(args.storage, name, version)
        elif args.version == str(before.version):
            model = registry.rollback(args.storage, name)
        try:
            deploy(args.model_copy(update={"url": model.url, "digest": model.digest, "version": str(model.version)}))
        except BaseException:
            registry.promote(args.storage, name, before.version)
            raise
    View().say(f"{name} answers from version {model.version} again, which is production")


@contextmanager
def _running(spec: Spec | None = None) -> Iterator[None]:
    """A session on the Ray that is up. ResourceError where none is."""
    from heliostat.cluster.config import ClusterConfig
    from heliostat.cluster.session.address import find_address
    from heliostat.cluster.session.session import session

    if find_address(spec.cluster if spec else ClusterConfig()) is None:
        raise ResourceError("nothing is running: no detached Ray of ours here, and RAY_ADDRESS is not set")
    with train.serving_session(spec) if spec else session(ClusterConfig(), cpus=0):
        yield


def show_standing(found: Standing, *, ended: bool, view: View) -> None:
    """Both versions, and what sets them apart."""
    from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE
    from heliostat.serve.experiment.stats import compare_errors, compare_feedback, compare_times

    experiment = found.experiment
    baseline, candidate = found.arms[BASELINE], found.arms[CANDIDATE]
    rows = [
        [BASELINE, experiment.baseline, f"{1 - experiment.share:.0%}", *_cells(baseline)],
        [CANDIDATE, experiment.candidate, f"{experiment.share:.0%}", *_cells(candidate)],
    ]
    state = "ended" if ended else "running"
    columns = ["", "version", "share", "requests", "failed", *(f"p{q * 100:g} ms" for q in QUANTILES), "feedback"]
    view.table(f"{found.name}: experiment of {found.started:%Y-%m-%d %H:%M} UTC, {state}", columns, rows)
    view.say(_line("failed", compare_errors(baseline, candidate), lambda value: f"{value * 100:+.2f} points"))
    view.say(_line("time", compare_times(baseline, candidate), lambda value: f"{math.exp(value):.2f} times"))
    view.say(_line("feedback", compare_feedback(baseline, candidate), lambda value: f"{value:+.3f}"))
    if found.verdict:
        view.say(found.verdict)


def _cells(arm: Arm) -> list[object]:
    rate = f"{arm.errors} ({arm.errors / arm.requests:.2%})" if arm.errors else "0"
    times = ["" if (seconds := arm.quantile(q)) is None else f"{seconds * 1000:.1f}" for q in QUANTILES]
    return [arm.requests, rate, *times, f"{arm.feedback.mean:.3f} ({arm.feedback.n})" if arm.feedback.n else ""]


def _line(what: str, found: Difference | None, shown: Callable[[float], str]) -> str:
    """The candidate against the baseline, in one line."""
    if found is None:
        return f"{what}: too little is known"
    called = "a difference" if found.p_value < ALPHA else "no difference seen"
    between = f"{shown(found.low)} to {shown(found.high)}"
    return f"{what}: {shown(found.estimate)} ({between}), p = {found.p_value:.2g}: {called}"
