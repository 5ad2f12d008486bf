"""The command line, composed of the files in `commands`. Nothing heavy is imported before a spec has been read."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from heliostat import __version__
from heliostat.commands import (
    bench,
    demo,
    deploy,
    doctor,
    endpoints,
    experiment,
    explain,
    exporter,
    init,
    jobs,
    keys,
    models,
    monitor,
    render,
    stages,
    submit,
    trials,
)
from heliostat.infra.errors import StoppedError


class Commands(TyperGroup):
    """Lets Ctrl-C leave as an error, with a line that says so: typer itself would exit without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; raises StoppedError on Ctrl-C and on a signal that ends commands in the same way."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise StoppedError(str(error) or "stopped", getattr(error, "number", signal.SIGINT)) from error


app = typer.Typer(
    name="heliostat",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a base model and your own data to a monitored, autoscaled endpoint.",
)
for command in (demo, init, doctor, stages, endpoints, explain, bench, exporter, submit, deploy):
    app.add_typer(command.app)
for name, group in (
    ("models", models),
    ("keys", keys),
    ("experiment", experiment),
    ("jobs", jobs),
    ("trials", trials),
    ("monitor", monitor),
    ("render", render),
):
    app.add_typer(group.app, name=name)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """From a base model and your own data to a monitored, autoscaled endpoint."""
    if version:
        typer.echo(f"heliostat {__version__}")
        raise typer.Exit
