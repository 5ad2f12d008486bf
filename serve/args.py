"""The arguments of a Ray Serve application: data only."""

from __future__ import annotations

from pydantic import model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.storage.config import StorageConfig
from heliostat.serve.config import AdapterName, ServeConfig, check_names


class AdapterArgs(StrictModel):
    """One version of a published adapter."""

    url: str
    """Where its bundle is."""
    digest: str
    """SHA-256 of the bundle's manifest: nothing else is served."""
    version: str


CANDIDATE_SUFFIX = ".candidate"


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
        """Its name in Ray Serve."""
        return f"{self.name}{CANDIDATE_SUFFIX}" if self.is_candidate else self.name

    @property
    def route(self) -> str:
        """The path prefix of the endpoint."""
        route = self.config.route or f"/{self.name}"
        return f"{route}{CANDIDATE_SUFFIX}" if self.is_candidate else route
