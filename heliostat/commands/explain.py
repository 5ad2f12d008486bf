"""`heliostat explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import full_reference, published

app = typer.Typer()


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION; a spec (a YAML file) for NAME.")],
    given: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A text or a row as JSON, a file of either, or an image file."),
    ],
    label: Annotated[str | None, typer.Option(help="The label to explain; the likeliest where left out.")] = None,
    method: Annotated[str | None, typer.Option(help="For images: occlusion, or saliency.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as POST /v1/explain answers.")] = False,
) -> None:
    """Say why a published classifier answers as it does: what in the input speaks for a label, and what against it."""
    from heliostat.operations.explain import explain as run

    called, storage = published(model)
    run(storage, full_reference(called), given, label, method, html, as_json)
