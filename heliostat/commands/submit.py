"""`heliostat submit`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import DryRun, JobAddress, Overrides, job_address, planned
from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec, sources_here

app = typer.Typer()
COMMANDS = ("prepare", "tune", "train", "evaluate", "serve")


@app.command()
def submit(
    command: Annotated[
        str, typer.Argument(help="What to run there: `prepare`, `tune`, `train`, `evaluate` or `serve`.")
    ],
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a recipe.")],
    overrides: Overrides = None,
    address: JobAddress = None,
    name: Annotated[str | None, typer.Option("--id", help="ID of the job; refused where there is one.")] = None,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Submit a job that fails so often again; a run goes on.")
    ] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Run a command as a job on a Ray cluster."""
    if command not in COMMANDS:
        raise ConfigError(f"submit: {command!r} given; {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]} is allowed")
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"--id: {name!r} given; letters, digits, dots, dashes and underscores are allowed, 64 at most"
        )
    if retries and not wait:
        raise ConfigError(f"--retries: {retries} given with --no-wait; only who waits submits a job again")
    loaded, sources = load_spec(spec, overrides or []), sources_here(spec, overrides or [])
    cluster = job_address(address)
    if planned(loaded, dry_run, f"submit {command} to {cluster}"):
        return
    from heliostat.operations.submit import Submission, submit_command

    given = shlex.join([str(spec), *(overrides or [])])
    submit_command(Submission(command, loaded, given, sources, name, retries), cluster, wait)
