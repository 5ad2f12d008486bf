"""Builds the Ray Serve application of one published model from its configuration."""

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
EXTRA_ONGOING_REQUESTS = 4096
"""Added to the spec's limit as Ray's limit per replica, so that our own middleware answers 429 instead of Ray."""
ENVIRONMENT = {
    # One event loop from socket to model: a second one costs two thread switches a request.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # oneDNN: cache the kernels of all shapes.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def build(args: Mapping[str, Any]) -> Application:
    """Builds the application in a Serve config file: `import_path` names this function, `args` are passed to it.

    Ray Serve requires builders to have exactly one parameter. Raises ConfigError for a missing, unknown or wrong field.
    """
    return application(configuration.build(AppArgs, args))


def application(args: AppArgs, experiment: Experiment | None = None) -> Application:
    """The application for `args`. An `experiment` is only user_config, so its start or end replaces no replica."""
    from ray import serve

    # Defaults are as written (8), parsed values may differ (8.0); Ray would see two configurations.
    args = AppArgs.model_validate_json(args.model_dump_json())
    with warnings.catch_warnings():
        # In this version of Ray, no other setting for the interval of reports works.
        warnings.filterwarnings("ignore", message=".*metrics_interval_s", category=DeprecationWarning)
        deployment = serve.deployment(serve.ingress()(Replica), name=DEPLOYMENT, **options(args.config))
    settings = experiment.model_dump(mode="json") if experiment else {}
    deployment = deployment.options(version=fingerprint(args), user_config=settings, _internal=True)
    return deployment.bind(args.model_dump(mode="json"))


def options(config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's deployment options for an endpoint."""
    return {
        "ray_actor_options": {**resources(config), "runtime_env": {"env_vars": ENVIRONMENT}},
        "max_ongoing_requests": EXTRA_ONGOING_REQUESTS + config.max_ongoing_requests,
        "autoscaling_config": autoscaling(config),
        # If loading a model fails once, it fails again: report the error now instead of retrying.
        "max_constructor_retry_count": 1,
        # Replicas of the old version keep serving until those of the new one are ready.
        "max_surge_percent": 100,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        **draining(config),
        **holding(config),
    }


def fingerprint(args: AppArgs) -> str:
    """Deployment version by which Ray Serve decides whether to replace replicas; the same args give the same one."""
    return hashlib.sha256(f"{__version__} {args.model_dump_json()}".encode()).hexdigest()[:16]
