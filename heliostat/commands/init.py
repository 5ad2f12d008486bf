"""`heliostat init`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def init(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="What the data are; all kinds without.")] = None,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="A folder that is new or empty.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the folder's where left out.")] = None,
) -> None:
    """Begin with your own data: write a commented spec and a small sample that trains as it is."""
    from heliostat.starters.write import start

    called = start(kind, folder, name)
    typer.echo(f"{folder} holds a spec and data for {called}; next: heliostat train {quote(f'{folder}/spec.yaml')}")
