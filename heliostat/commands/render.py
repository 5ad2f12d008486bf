"""`heliostat render`: files for other machines, from a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import ModelOption, Overrides, SpecArgument
from heliostat.spec import load_spec

app = typer.Typer(no_args_is_help=True, help="Files for a cluster, from a spec.")


@app.callback()
def root() -> None:
    """Files for a cluster, from a spec."""


@app.command()
def k8s(
    spec: SpecArgument,
    overrides: Overrides = None,
    overlay: Annotated[str, typer.Option(help="`local`, `gpu` or `production`.")] = "local",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, for `kubectl apply -k DIR`.")] = Path(
        "k8s-rendered"
    ),
    run: Annotated[str | None, typer.Option(help="Name of the run and its job; NAME-1 where left out.")] = None,
    model: ModelOption = None,
    train_image: Annotated[
        str | None, typer.Option(help="NAME:TAG or NAME@sha256:DIGEST; the overlay's if not given.")
    ] = None,
    serve_image: Annotated[str | None, typer.Option(help="The same for serving.")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="With the endpoint of a published version.")] = True,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change in DIR, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of DIR that were edited.")] = False,
) -> None:
    """Manifests for Kubernetes with KubeRay: the job that trains the spec, the endpoint of its published version."""
    from heliostat.operations.render import render

    loaded = load_spec(spec, overrides or [])
    images = {kind: image for kind, image in (("train", train_image), ("serve", serve_image)) if image}
    render(loaded, overlay, out, run=run, model=model, images=images, is_served=serve, shows=diff, force=force)


@app.command()
def launcher(
    spec: SpecArgument,
    overrides: Overrides = None,
    provider: Annotated[
        str | None, typer.Option(help="`local`, `aws`, `gcp` or `azure`; the only one of the spec if not given.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write, for `ray up FILE`; PROVIDER.yaml if not given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE where it was edited.")] = False,
) -> None:
    """The file of a Ray cluster on machines of one's own or of a cloud, from `cluster.launcher` of the spec."""
    from heliostat.operations.render_launcher import render_launcher

    render_launcher(load_spec(spec, overrides or []), provider, out, force=force)
