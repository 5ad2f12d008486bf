"""Code shared by commands: arguments, dry runs, and the session of the stages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.infra.installed import TRAINING, require
from heliostat.infra.storage.config import StorageConfig
from heliostat.spec import Spec, load_spec

if TYPE_CHECKING:
    from heliostat.view.terminal import View

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Set over the spec, such as train.epochs=2."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]
JobAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="http://HOST:8265 of the cluster's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine's.",
    ),
]
Context = Annotated[str | None, typer.Option(metavar="NAME", help="A context of the kubeconfig: on Kubernetes, there.")]
Namespace = Annotated[str | None, typer.Option(metavar="NAME", help="The context's own where left out.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION; production.")
]


@contextmanager
def stages(spec: Spec) -> Iterator[View]:
    """Starts a Ray session for the spec and yields the terminal view."""
    from heliostat.pipeline.sessions import session
    from heliostat.view.terminal import View

    require(*TRAINING)
    view = View()
    with view.progress("Ray") as advance:
        advance("starting", 0, 0)
    with session(spec):
        yield view


def planned(spec: Spec, dry_run: bool, what: str) -> bool:
    """With --dry-run, prints what would happen and the resolved spec; returns whether it did."""
    if dry_run:
        from heliostat.infra.config.strict import dump_yaml

        typer.echo(f"# would {what}, in {spec.storage.url}\n{dump_yaml(spec)}", nl=False)
    return dry_run


def published(name: str) -> tuple[str, StorageConfig]:
    """The name of a model, with `@ALIAS` or `/VERSION` where given, and the storage that it is published in.

    `name` may begin with the YAML file of a spec instead of the model's name: a spec says where it publishes.
    """
    match = re.fullmatch(r"(.+\.ya?ml)([@/][^@/]+)?", name)
    if match is None:
        return name, StorageConfig()
    spec = load_spec(match[1])
    return spec.name + (match[2] or ""), spec.storage


def storage_of(spec: str | None, url: str | None, endpoint_url: str | None = None) -> StorageConfig:
    """The storage of a spec or at a URL, else that of HELIOSTAT_STORAGE; raises ConfigError for both or a wrong one."""
    if spec and url:
        raise ConfigError(f"--storage: {url} given, and the spec {spec} names one too; give one of them")
    if spec:
        return load_spec(spec).storage
    given = {"url": url, "endpoint_url": endpoint_url}
    return build(StorageConfig, {key: value for key, value in given.items() if value}, source="--storage")


def full_reference(reference: str) -> str:
    """Completes short forms to `models:/…`; a bare name means its production version."""
    reference = reference.removeprefix("models:/")
    return f"models:/{reference if '@' in reference or '/' in reference else reference + '@production'}"


def job_address(given: str | None) -> str:
    """The dashboard of the cluster for jobs: as given, as the environment says, or that of this machine.

    Raises ConfigError where RAY_ADDRESS names a cluster in a way that says nothing of its dashboard.
    """
    from heliostat.cluster.jobs import default_address

    found = given or default_address()
    if not found and (address := os.environ.get("RAY_ADDRESS")):
        raise ConfigError(f"RAY_ADDRESS: {address} given; jobs need --address http://HOST:8265, or that in its place")
    return found or "http://127.0.0.1:8265"
