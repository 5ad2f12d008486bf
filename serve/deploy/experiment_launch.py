"""Begin a canary or an A/B test beside an application that runs, and let the candidate take its place."""

from __future__ import annotations

import time

from heliostat.cluster.session.resources import short_of
from heliostat.infra.errors import ConfigError
from heliostat.serve.args import CANDIDATE_SUFFIX, AppArgs
from heliostat.serve.deploy.applications import deployed, plain_url, run, running_experiment, wait
from heliostat.serve.deploy.experiment_ending import END_SECONDS, end
from heliostat.serve.deploy.launch import Endpoint, deploy
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import start_coordinator


def start(args: AppArgs, share: float, *, by: str | None = None, guarded: bool = True) -> Experiment:
    """Puts a version beside the one that is served under the same name, and gives it `share` of the requests.

    Returns once replicas send it some. Raises what `deploy` does; ConfigError where nothing is served under the name,
    where it is the same version, or where an experiment runs. After a failure all is as it was before.
    """
    baseline = deployed(args.name)
    if baseline is None:
        raise ConfigError(f"{args.name}: no such endpoint; an experiment needs one to compare with: heliostat serve")
    if baseline.version == args.version:
        raise ConfigError(f"{args.name}: version {args.version} is served already; choose another with --model")
    if running_experiment(args.name):
        raise ConfigError(f"{args.name}: an experiment runs; heliostat experiment promote or stop ends it")
    config = args.config.model_copy(update={"route": baseline.config.route})
    # What is compared are versions of the model; adapters answer alike on both sides.
    shared = {"keys": baseline.keys, "adapters": baseline.adapters}
    candidate = args.model_copy(update={"config": config, **shared, "is_candidate": True})
    deploy(candidate)
    experiment = Experiment(
        share=share, by=by, guarded=guarded, baseline=baseline.version, candidate=args.version, url=plain_url(candidate)
    )
    try:
        start_coordinator(args.name, experiment, end)
        run(baseline, experiment)
        wait(baseline, time.monotonic() + END_SECONDS)
    except BaseException:
        end(args.name)
        raise
    return experiment


def promote(name: str) -> Endpoint:
    """Rolls the endpoint to the candidate and ends the experiment. ConfigError where no candidate is there.

    Where the cluster has no room for one more replica the experiment ends first, which makes room.
    """
    candidate = deployed(name + CANDIDATE_SUFFIX)
    if candidate is None:
        raise ConfigError(f"{name}: no experiment runs")
    if short_of(candidate.config.cpus_per_replica, candidate.config.gpus_per_replica):
        end(name)
    return deploy(candidate.model_copy(update={"is_candidate": False}))
