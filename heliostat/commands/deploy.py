"""`heliostat deploy` and `heliostat destroy`: a model on a Kubernetes cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import Context, ModelOption, Namespace, Overrides, SpecArgument
from heliostat.commands.manifests import OUT, Job, Out, Overlay, Run, ServeImage, TrainImage, images
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def deploy(
    spec: SpecArgument,
    overrides: Overrides = None,
    context: Context = None,
    namespace: Namespace = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="`train`, `serve`, `cluster` or `monitoring`, several times; the endpoint where left out."),
    ] = None,
    overlay: Overlay = "local",
    out: Out = OUT,
    kustomization: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your own, which takes --out in; applied in its place."),
    ] = None,
    job: Job = "train",
    run: Run = None,
    model: ModelOption = None,
    train_image: TrainImage = None,
    serve_image: ServeImage = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all must run and answer.")] = 1800,
) -> None:
    """Render a spec, apply it to a Kubernetes cluster, and wait until the job has ended or the endpoint answers."""
    from heliostat.operations import deploy as operation
    from heliostat.operations.render import Request

    loaded, api = load_spec(spec, overrides or []), operation.reach(context, namespace)
    parts = part or ["serve"]
    request = Request(overlay, job, run, model, images(train_image, serve_image), is_served="serve" in parts)
    operation.deploy(loaded, request, out, parts, api, timeout, kustomization)


@app.command()
def destroy(
    name: Annotated[str | None, typer.Argument(help="One endpoint; all that was deployed, where left out.")] = None,
    context: Context = None,
    namespace: Namespace = None,
    volumes: Annotated[bool, typer.Option("--volumes", help="Volumes too, with the data in them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all must be gone.")] = 600,
) -> None:
    """Take away what was deployed into a namespace: what runs first, its accounts and policies last."""
    from heliostat.operations import deploy as operation

    operation.destroy(operation.reach(context, namespace), name, volumes=volumes, sure=yes, seconds=timeout)
