"""The command line, composed of the files in `commands`. Nothing heavy is imported before a spec has been read."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat import __version__
from heliostat.commands import (
    bench,
    demo,
    doctor,
    endpoints,
    experiment,
    explain,
    init,
    keys,
    models,
    stages,
    submit,
)

app = typer.Typer(
    name="heliostat",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a base model and your own data to a monitored, autoscaled endpoint.",
)
for command in (demo, init, doctor, stages, endpoints, explain, bench, submit):
    app.add_typer(command.app)
for name, group in (("models", models), ("keys", keys), ("experiment", experiment)):
    app.add_typer(group.app, name=name)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """From a base model and your own data to a monitored, autoscaled endpoint."""
    if version:
        typer.echo(f"heliostat {__version__}")
        raise typer.Exit
