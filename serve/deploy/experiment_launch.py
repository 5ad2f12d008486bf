"""Start a canary or an A/B test beside a running application, and promote its candidate."""

from __future__ import annotations

import time

from heliostat.cluster.session.resources import lacking_resources
from heliostat.infra.errors import ConfigError
from heliostat.serve.args import CANDIDATE_SUFFIX, AppArgs
from heliostat.serve.deploy.applications import deployed, plain_url, run, running_experiment, wait
from heliostat.serve.deploy.experiment_ending import END_SECONDS, end
from heliostat.serve.deploy.launch import Endpoint, deploy
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import start_coordinator


def start(args: AppArgs, share: float, *, by: str | None = None, guarded: bool = True) -> Experiment:
    """Deploys a version as the candidate of a running endpoint, and gives it `share` of the requests.

    Returns when the replicas send it requests. Raises what `deploy` raises, and ConfigError if no endpoint has this
    name, if it serves the same version already, or if an experiment runs. A failure leaves the endpoint as it was.
    """
    baseline = deployed(args.name)
    if baseline is None:
        raise ConfigError(f"{args.name}: no such endpoint; an experiment needs one to compare with: heliostat serve")
    if baseline.version == args.version:
        raise ConfigError(f"{args.name}: version {args.version} is served already; choose another with --model")
    if running_experiment(args.name):
        raise ConfigError(f"{args.name}: an experiment runs; heliostat experiment promote or stop ends it")
    config = args.config.model_copy(update={"route": baseline.config.route})
    # Only versions of the model are compared: both sides have the same keys and adapters.
    shared = {"keys": baseline.keys, "adapters": baseline.adapters}
    candidate = args.model_copy(update={"config": config, **shared, "is_candidate": True})
    deploy(candidate)
    experiment = Experiment(
        share=share, by=by, guarded=guarded, objectives=config.objectives,
        baseline=baseline.version, candidate=args.version, url=plain_url(candidate),
    )  # fmt: skip
    try:
        start_coordinator(args.name, experiment, end)
        run(baseline, experiment)
        wait(baseline, time.monotonic() + END_SECONDS)
    except BaseException:
        end(args.name)
        raise
    return experiment


def promote(name: str) -> Endpoint:
    """Rolls the endpoint over to the candidate and ends the experiment; raises ConfigError if there is no candidate.

    If the cluster lacks resources for one more replica, the experiment ends first, which frees the candidate's.
    """
    candidate = deployed(name + CANDIDATE_SUFFIX)
    if candidate is None:
        raise ConfigError(f"{name}: no experiment runs")
    if lacking_resources(candidate.config.cpus_per_replica, candidate.config.gpus_per_replica):
        end(name)
    return deploy(candidate.model_copy(update={"is_candidate": False}))
