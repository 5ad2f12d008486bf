"""`heliostat models`: versions, and the aliases that point to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import full_reference, published

Name = Annotated[str, typer.Argument(help="The model, or its spec (a YAML file) for the storage that this names.")]
Alias = Annotated[str, typer.Option(help="The alias to move.")]
app = typer.Typer(no_args_is_help=True, help="Published models: list, show, promote, roll back.")


@app.command("list")
def show_all(
    spec: Annotated[str | None, typer.Argument(help="A spec, for the storage that it names.")] = None,
) -> None:
    """All published versions, and what their aliases point to."""
    from heliostat.infra.registry.registry import list_models
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.spec import load_spec
    from heliostat.view.terminal import View

    View().versions(list_models(load_spec(spec).storage if spec else StorageConfig()))


@app.command("show")
def show(reference: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION; a spec for NAME.")]) -> None:
    """One version: where it comes from, its metrics and its files."""
    from heliostat.infra.registry.bundle import read_manifest
    from heliostat.infra.registry.registry import resolve
    from heliostat.infra.storage.store import open_store
    from heliostat.view.terminal import View

    called, storage = published(reference)
    model = resolve(storage, full_reference(called))
    manifest, view = read_manifest(open_store(model.url, storage.endpoint_url), ""), View()
    view.version(model, sum(entry.size_bytes for entry in manifest.files.values()))
    view.metrics("Test split", model.metrics)
    rows = [[name, entry.size_bytes, entry.sha256] for name, entry in manifest.files.items()]
    view.table("Files", ["name", "bytes", "SHA-256"], rows)


@app.command("promote")
def promote(
    name: Name,
    version: int,
    alias: Alias = "production",
    into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write it into a folder of `heliostat render` too; commits nothing."),
    ] = None,
) -> None:
    """Let an alias point to a version."""
    from heliostat.operations.promote import promote

    called, storage = published(name)
    for line in promote(storage, called, version, alias, into):
        typer.echo(line)


@app.command("rollback")
def rollback(name: Name, alias: Alias = "production") -> None:
    """Let an alias point to the version before."""
    from heliostat.infra.registry.registry import rollback

    called, storage = published(name)
    model = rollback(storage, called, alias)
    typer.echo(f"{called}@{alias} is version {model.version} again; heliostat serve puts it to work")
