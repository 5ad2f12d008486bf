"""Options of the commands that render manifests for Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overlay = Annotated[str, typer.Option(help="`local`, `gpu` or `production`.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, for `kubectl apply -k DIR`.")]
OUT = Path("k8s-rendered")
Job = Annotated[str, typer.Option(help="What the job runs: `prepare`, `train`, `tune` or `evaluate`.")]
Run = Annotated[str | None, typer.Option(help="Name of the job, and of the run; NAME-1 or NAME-JOB-1 where left out.")]
TrainImage = Annotated[str | None, typer.Option(help="NAME:TAG or NAME@sha256:DIGEST; the overlay's if not given.")]
ServeImage = Annotated[str | None, typer.Option(help="The same for serving.")]


def images(train: str | None, serve: str | None) -> dict[str, str]:
    """Kind -> image, of those that are given."""
    return {kind: image for kind, image in (("train", train), ("serve", serve)) if image}
