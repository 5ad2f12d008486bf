"""One published model as one Ray Serve application: configuration in, application out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heliostat import __version__
from heliostat.infra.config import strict as configuration
from heliostat.serve.args import AppArgs
from heliostat.serve.config import ServeConfig
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.replica.replica import Replica
from heliostat.serve.replica.scaling import autoscaling, draining, holding, resources

if TYPE_CHECKING:
    from ray.serve import Application


DEPLOYMENT = "model"
ADMITTED = 4096
"""Requests that Ray lets into a replica, on top of the limit of the spec, so that the replica itself says 429."""
ENVIRONMENT = {
    # One event loop from socket to model: a second one costs two thread switches a request.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # oneDNN: keep the kernels of every shape that comes up.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def build(args: Mapping[str, Any]) -> Application:
    """The application of a Serve config file, whose `import_path` names this function and whose `args` it gets.

    Ray Serve calls builders of exactly one parameter. Raises ConfigError for a field that is missing, unknown or wrong.
    """
    return application(configuration.build(AppArgs, args))


def application(args: AppArgs, experiment: Experiment | None = None) -> Application:
    """The application for `args`; replicas begin or end an `experiment` as they are."""
    from ray import serve

    # Defaults are as written (8), values from elsewhere parsed (8.0); Ray would take them for two configurations.
    args = AppArgs.model_validate_json(args.model_dump_json())
    with warnings.catch_warnings():
        # The interval of reports has no other setting that works in this version of Ray.
        warnings.filterwarnings("ignore", message=".*metrics_interval_s", category=DeprecationWarning)
        deployment = serve.deployment(serve.ingress()(Replica), name=DEPLOYMENT, **options(args.config))
    settings = experiment.model_dump(mode="json") if experiment else {}
    deployment = deployment.options(version=fingerprint(args), user_config=settings, _internal=True)
    return deployment.bind(args.model_dump(mode="json"))


def options(config: ServeConfig) -> dict[str, Any]:
    """How Ray Serve runs the replicas of an endpoint."""
    return {
        "ray_actor_options": {**resources(config), "runtime_env": {"env_vars": ENVIRONMENT}},
        "max_ongoing_requests": ADMITTED + config.max_ongoing_requests,
        "autoscaling_config": autoscaling(config),
        # A model that is refused once is refused again: what it says must reach the user now.
        "max_constructor_retry_count": 1,
        # The replicas of the version before go on until those of the new one answer.
        "max_surge_percent": 100,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        **draining(config),
        **holding(config),
    }


def fingerprint(args: AppArgs) -> str:
    """What tells Ray Serve whether replicas have to be replaced: deploying the same again replaces none."""
    return hashlib.sha256(f"{__version__} {args.model_dump_json()}".encode()).hexdigest()[:16]
