"""`heliostat render`: files for other machines, from a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import ModelOption, Overrides, SpecArgument
from heliostat.spec import load_spec

Overlay = Annotated[str, typer.Option(help="`local`, `gpu` or `production`.")]
Job = Annotated[str, typer.Option(help="What the job runs: `prepare`, `train`, `tune` or `evaluate`.")]
Run = Annotated[str | None, typer.Option(help="Name of the job, and of the run; NAME-1 or NAME-JOB-1 where left out.")]
TrainImage = Annotated[str | None, typer.Option(help="NAME:TAG or NAME@sha256:DIGEST; the overlay's if not given.")]
ServeImage = Annotated[str | None, typer.Option(help="The same for serving.")]
Serve = Annotated[bool, typer.Option("--serve/--no-serve", help="With the endpoint of a published version.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Write all objects into DIR/manifests.yaml, in the order to apply them.")
]
Diff = Annotated[bool, typer.Option("--diff", help="Show what would change in DIR, and write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files of DIR that were edited.")]
app = typer.Typer(no_args_is_help=True, help="Files for a cluster, from a spec.")


@app.callback()
def root() -> None:
    """Files for a cluster, from a spec."""


@app.command()
def k8s(
    spec: SpecArgument,
    overrides: Overrides = None,
    overlay: Overlay = "local",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, for `kubectl apply -k DIR`.")] = Path(
        "k8s-rendered"
    ),
    job: Job = "train",
    run: Run = None,
    model: ModelOption = None,
    train_image: TrainImage = None,
    serve_image: ServeImage = None,
    serve: Serve = True,
    plain: Plain = False,
    diff: Diff = False,
    force: Force = False,
) -> None:
    """Manifests for Kubernetes with KubeRay: a job that runs the spec, the endpoint of its published version."""
    from heliostat.operations.render import Request, render

    request = Request(overlay, job, run, model, _images(train_image, serve_image), serve)
    form = "plain" if plain else "kustomize"
    render(load_spec(spec, overrides or []), request, out, form=form, shows=diff, force=force)


@app.command()
def helm(
    spec: SpecArgument,
    overrides: Overrides = None,
    overlay: Overlay = "local",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write: the chart.")] = Path("chart"),
    job: Job = "train",
    run: Run = None,
    model: ModelOption = None,
    train_image: TrainImage = None,
    serve_image: ServeImage = None,
    serve: Serve = True,
    diff: Diff = False,
    force: Force = False,
) -> None:
    """The same as a Helm chart: names, images, sizes and the endpoint's configuration are its values."""
    from heliostat.operations.render import Request, render

    request = Request(overlay, job, run, model, _images(train_image, serve_image), serve)
    render(load_spec(spec, overrides or []), request, out, form="helm", shows=diff, force=force)


def _images(train: str | None, serve: str | None) -> dict[str, str]:
    return {kind: image for kind, image in (("train", train), ("serve", serve)) if image}
