"""One published model as one Ray Serve application: configuration in, application out."""

from __future__ import annotations

import asyncio
import hashlib
import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from heliostat import __version__
from heliostat.infra import config as configuration
from heliostat.infra.config import StrictModel
from heliostat.infra.storage import StorageConfig
from heliostat.serve.auth import hash_keys, keys_from_environment
from heliostat.serve.config import ServeConfig
from heliostat.serve.scaling import autoscaling, draining, resources

if TYPE_CHECKING:
    from pathlib import Path

    from ray.serve import Application

    from heliostat.infra.published import PublishedModel
    from heliostat.serve.errors import App
    from heliostat.serve.http import Served, Service
    from heliostat.serve.metrics import ServeMetrics

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


class AppArgs(StrictModel):
    """Which model to serve, and how. In a Serve config file these are the `args` of the application."""

    name: str
    """Name of the model, and of its route where `config.route` is left out."""
    url: str
    """Where its bundle is: `s3://bucket/prefix/models/name/run` or a path."""
    digest: str
    """SHA-256 of the bundle's manifest: nothing else is served."""
    version: str
    config: ServeConfig = ServeConfig()
    storage: StorageConfig = StorageConfig()
    keys: tuple[str, ...] = ()
    """Hashed API keys, `name:sha256`; those in HELIOSTAT_API_KEYS of the replica's environment count too."""

    @property
    def route(self) -> str:
        """The path prefix of the endpoint."""
        return self.config.route or f"/{self.name}"


def build(args: AppArgs | Mapping[str, Any]) -> Application:
    """The application for `args`, or for a mapping with the same fields, as Serve config files give.

    Raises ConfigError for a field that is missing, unknown or wrong.
    """
    from ray import serve

    args = args if isinstance(args, AppArgs) else configuration.build(AppArgs, args)
    # Defaults are as written (8), values from elsewhere parsed (8.0); Ray would take them for two configurations.
    args = AppArgs.model_validate_json(args.model_dump_json())
    with warnings.catch_warnings():
        # The interval of reports has no other setting that works in this version of Ray.
        warnings.filterwarnings("ignore", message=".*metrics_interval_s", category=DeprecationWarning)
        deployment = serve.deployment(serve.ingress()(Replica), name=DEPLOYMENT, **options(args.config))
    deployment = deployment.options(version=fingerprint(args), _internal=True)
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
    }


def fingerprint(args: AppArgs) -> str:
    """What tells Ray Serve whether replicas have to be replaced: deploying the same again replaces none."""
    return hashlib.sha256(f"{__version__} {args.model_dump_json()}".encode()).hexdigest()[:16]


class Replica:
    """One process that serves: the HTTP application and the model behind it."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        from heliostat.serve.metrics import Buffer

        self.args = configuration.build(AppArgs, args)
        self.keys = replica_keys(self.args)
        self.metrics = Buffer()

    async def __serve_build_asgi_app__(self) -> App:
        """Loads the model and returns what Ray Serve mounts at the route."""
        from heliostat.serve.metrics import ServeMetrics

        metrics = ServeMetrics(self.args.name, self.args.version, self.metrics.add)
        self.service, app = await start(self.args, self.keys, metrics)
        return app

    def check_health(self) -> None:
        """Raises where the replica must be replaced."""
        self.service.check_health()

    def __del__(self) -> None:
        for part in ("service", "metrics"):
            if hasattr(self, part):
                getattr(self, part).close()


def replica_keys(args: AppArgs) -> tuple[str, ...]:
    """The hashed keys that open this endpoint; ConfigError where there should be some and are none."""
    if args.config.auth == "none":
        return ()
    own = hash_keys(",".join(args.keys))
    return own + keys_from_environment(required=not own)


async def start(args: AppArgs, keys: tuple[str, ...], metrics: ServeMetrics) -> tuple[Service, App]:
    """Fetches, verifies and loads the model, asks it its probe, and puts the HTTP application around it."""
    from heliostat.serve.http import create_app

    service, served, probe = await asyncio.to_thread(load, args, metrics)
    try:
        if probe:
            await service.check_probe(probe)
    except Exception:
        service.close()
        raise
    return service, create_app(served, service, args.config, keys, metrics)


def load(args: AppArgs, metrics: ServeMetrics) -> tuple[Service, Served, dict[str, Any]]:
    """The model's service, what it is called, and its probe. The bundle's files are gone when this returns."""
    from heliostat.serve.bundles import fetched
    from heliostat.serve.http import Served

    with fetched(args.url, args.digest, args.storage.endpoint_url) as (folder, description):
        from transformers.utils import logging  # only now: a bundle that is refused needs no seconds of imports

        logging.disable_progress_bar()
        served = Served(args.name, args.version, description.task, description.run_id, description.created)
        if description.task == "causal-lm":
            service = _generation(folder, args.config, served, metrics)
        else:
            service = _classification(folder, description, args.config, served, metrics)
        return service, served, description.probe


def _classification(
    folder: Path, description: PublishedModel, config: ServeConfig, served: Served, metrics: ServeMetrics
) -> Service:
    from heliostat.serve.http import Service
    from heliostat.serve.predictors import text_classification
    from heliostat.serve.predictors.classification_api import ClassificationApi

    model = text_classification.load(folder, description, config, metrics)
    api = ClassificationApi(model, served, config, metrics)
    return Service(api.router, model.check_probe, model.check_health, model.close)


def _generation(folder: Path, config: ServeConfig, served: Served, metrics: ServeMetrics) -> Service:
    from heliostat.serve.engines import transformers
    from heliostat.serve.engines.base import check_probe
    from heliostat.serve.engines.openai_api import OpenAIApi
    from heliostat.serve.http import Service

    engine = transformers.load(folder, config, metrics)
    api = OpenAIApi(engine, served, config, metrics)
    probe = partial(check_probe, engine, exact=config.precision == "fp32")
    return Service(api.router, probe, engine.check_health, engine.close)
