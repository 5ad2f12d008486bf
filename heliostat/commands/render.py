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
    job: Annotated[str, typer.Option(help="What the job runs: `prepare`, `train`, `tune` or `evaluate`.")] = "train",
    run: Annotated[
        str | None, typer.Option(help="Name of the job, and of the run; NAME-1 or NAME-JOB-1 where left out.")
    ] = None,
    model: ModelOption = None,
    train_image: Annotated[
        str | None, typer.Option(help="NAME:TAG or NAME@sha256:DIGEST; the overlay's if not given.")
    ] = None,
    serve_image: Annotated[str | None, typer.Option(help="The same for serving.")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="With the endpoint of a published version.")] = True,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write all objects into DIR/manifests.yaml, in the order to apply them.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change in DIR, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of DIR that were edited.")] = False,
) -> None:
    """Manifests for Kubernetes with KubeRay: a job that runs the spec, the endpoint of its published version."""
    from heliostat.operations.render import Request, render

    loaded = load_spec(spec, overrides or [])
    images = {kind: image for kind, image in (("train", train_image), ("serve", serve_image)) if image}
    request = Request(overlay, job, run, model, images, serve)
    render(loaded, request, out, is_plain=plain, shows=diff, force=force)
