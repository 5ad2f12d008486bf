"""`heliostat render`: files for other machines, from a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import ModelOption, Overrides, SpecArgument
from heliostat.commands.manifests import OUT, Job, Out, Overlay, Run, ServeImage, TrainImage, images
from heliostat.spec import load_spec

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
    out: Out = OUT,
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

    request = Request(overlay, job, run, model, images(train_image, serve_image), serve)
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

    request = Request(overlay, job, run, model, images(train_image, serve_image), serve)
    render(load_spec(spec, overrides or []), request, out, form="helm", shows=diff, force=force)


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
