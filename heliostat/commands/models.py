"""`heliostat models`: versions, and the aliases that point to them."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import full_reference

app = typer.Typer(no_args_is_help=True, help="Published models: list, show, promote, roll back.")


@app.command("list")
def show_all() -> None:
    """All published versions, and what their aliases point to."""
    from heliostat.infra.registry.registry import list_models
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.view.terminal import View

    View().versions(list_models(StorageConfig()))


@app.command("show")
def show(reference: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION.")]) -> None:
    """One version: where it comes from, its metrics and its files."""
    from heliostat.infra.registry.bundle import read_manifest
    from heliostat.infra.registry.registry import resolve
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.infra.storage.store import open_store
    from heliostat.view.terminal import View

    model = resolve(StorageConfig(), full_reference(reference))
    manifest, view = read_manifest(open_store(model.url), ""), View()
    view.version(model, sum(entry.size_bytes for entry in manifest.files.values()))
    view.metrics("Test split", model.metrics)
    rows = [[name, entry.size_bytes, entry.sha256] for name, entry in manifest.files.items()]
    view.table("Files", ["name", "bytes", "SHA-256"], rows)


@app.command("promote")
def promote(
    name: str, version: int, alias: Annotated[str, typer.Option(help="The alias to move.")] = "production"
) -> None:
    """Let an alias point to a version."""
    from heliostat.infra.registry.registry import promote
    from heliostat.infra.storage.config import StorageConfig

    model = promote(StorageConfig(), name, version, alias)
    typer.echo(f"{name}@{alias} is version {model.version}; heliostat serve puts it to work")


@app.command("rollback")
def rollback(name: str, alias: Annotated[str, typer.Option(help="The alias to move.")] = "production") -> None:
    """Let an alias point to the version before."""
    from heliostat.infra.registry.registry import rollback
    from heliostat.infra.storage.config import StorageConfig

    model = rollback(StorageConfig(), name, alias)
    typer.echo(f"{name}@{alias} is version {model.version} again; heliostat serve puts it to work")
