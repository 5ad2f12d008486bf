"""One published model as one Ray Serve application: configuration in, application out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from heliostat import __version__
from heliostat.infra.config import strict as configuration
from heliostat.infra.config.strict import StrictModel
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import hash_keys, keys_from_environment
from heliostat.serve.config import AdapterName, ServeConfig, check_names
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.models.adapter_settings import AdapterArgs
from heliostat.serve.replica.autoscaling import FIRST_TOKEN_SECONDS
from heliostat.serve.replica.scaling import autoscaling, draining, holding, resources

if TYPE_CHECKING:
    from ray.serve import Application

    from heliostat.serve.errors import App
    from heliostat.serve.http.app import Doors

DEPLOYMENT = "model"
CANDIDATE_SUFFIX = ".candidate"
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
    adapters: dict[AdapterName, AdapterArgs] = {}
    """Adapters beside it, by the names that requests give: what `serve.adapters` of the spec refers to."""
    config: ServeConfig = ServeConfig()
    storage: StorageConfig = StorageConfig()
    keys: tuple[str, ...] = ()
    """Hashed API keys, `name:sha256`; those in HELIOSTAT_API_KEYS of the replica's environment count too."""
    is_candidate: bool = False
    """Whether it stands beside the application that is compared with it, under a name and a route of its own."""

    @model_validator(mode="after")
    def _adapters_are_versions(self) -> AppArgs:
        if self.config.adapters:
            raise ValueError("config.adapters: given; adapters, with url, digest and version of each, is allowed here")
        check_names(self.name, self.adapters)
        return self

    @property
    def application(self) -> str:
        """What Ray Serve calls it."""
        return f"{self.name}{CANDIDATE_SUFFIX}" if self.is_candidate else self.name

    @property
    def route(self) -> str:
        """The path prefix of the endpoint."""
        route = self.config.route or f"/{self.name}"
        return f"{route}{CANDIDATE_SUFFIX}" if self.is_candidate else route


def build(args: AppArgs | Mapping[str, Any], experiment: Experiment | None = None) -> Application:
    """The application for `args`, or for a mapping with the same fields, as Serve config files give.

    Replicas begin or end an `experiment` as they are. Raises ConfigError for a field that is missing, unknown or wrong.
    """
    from ray import serve

    args = args if isinstance(args, AppArgs) else configuration.build(AppArgs, args)
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


class Replica:
    """One process that serves: the HTTP application and the model behind it."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        from heliostat.serve.experiment.split import Split
        from heliostat.serve.metrics import Buffer

        self.args = configuration.build(AppArgs, args)
        self.doors = doors(self.args)
        self.split = Split(self.args.name, self.args.config)
        self.metrics = Buffer()

    async def __serve_build_asgi_app__(self) -> App:
        """Loads the model and returns what Ray Serve mounts at the route."""
        from heliostat.serve.http.last_words import Witness
        from heliostat.serve.http.wire import Wire
        from heliostat.serve.metrics import ServeMetrics
        from heliostat.serve.replica.loading import start

        self.counts = ServeMetrics(self.args.name, self.args.version, self.metrics.add)
        self.service, app = await start(self.args, self.doors, self.counts, self.split)
        self.witness = Witness()
        return Wire(app, self.witness)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray Serve hands to the policy that decides how many replicas there are."""
        wait = self.counts.mean_wait()
        return {} if wait is None else {FIRST_TOKEN_SECONDS: wait}

    def reconfigure(self, experiment: Mapping[str, Any]) -> None:
        """Begins or ends an experiment; Ray Serve calls it at the start too."""
        self.split.configure(configuration.build(Experiment, experiment) if experiment else None)

    def check_health(self) -> None:
        """Raises where the replica must be replaced."""
        self.service.check_health()

    def __del__(self) -> None:
        for part in (getattr(self, name, None) for name in ("service", "witness", "split", "metrics", "doors")):
            if part:
                part.close()


def doors(args: AppArgs) -> Doors | None:
    """The keys that open this endpoint, and what is counted of them; None where it is open to everyone.

    ConfigError where there should be keys and are none.
    """
    from heliostat.serve.access.keyring import KeyRing
    from heliostat.serve.access.quota import Ledger, Sharing
    from heliostat.serve.http.app import Doors

    if args.config.auth == "none":
        return None
    ledger, store = Ledger(), open_store(args.storage)
    keys = KeyRing(hash_keys(",".join(args.keys)) + keys_from_environment(required=False), store)
    keys_from_environment(required=keys.is_empty)
    return Doors(keys, ledger, Sharing(ledger, args.name))
