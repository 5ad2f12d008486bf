"""`heliostat submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heliostat.commands.common import DryRun, JobAddress, Overrides, job_address, planned
from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def submit(
    command: Annotated[str, typer.Argument(help="What to run there: `prepare`, `tune`, `train` or `evaluate`.")],
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a recipe.")],
    overrides: Overrides = None,
    address: JobAddress = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Run a command as a job on a Ray cluster."""
    if command not in ("prepare", "tune", "train", "evaluate"):
        raise ConfigError(f"submit: {command!r} given; prepare, tune, train or evaluate is allowed")
    loaded = load_spec(spec, overrides or [])
    cluster = job_address(address)
    if planned(loaded, dry_run, f"submit {command} to {cluster}"):
        return
    from heliostat.operations.submit import submit_command

    submit_command(command, loaded, cluster, wait)
