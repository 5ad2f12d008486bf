"""`heliostat jobs`: what was submitted to a Ray cluster."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from heliostat.commands.common import JobAddress, job_address

app = typer.Typer(no_args_is_help=True, help="Jobs on a Ray cluster: list, follow, wait for and stop them.")
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Its ID, as `heliostat submit` and `list` say it.")]


@app.command("list")
def show(address: JobAddress = None) -> None:
    """All jobs, newest first."""
    from heliostat.operations.jobs import list_jobs

    list_jobs(job_address(address))


@app.command()
def logs(job: JobArgument, address: JobAddress = None) -> None:
    """Print what the job has written so far."""
    from heliostat.operations.jobs import show_logs
    from heliostat.view.terminal import View

    show_logs(job, job_address(address), View())


@app.command()
def follow(job: JobArgument, address: JobAddress = None) -> None:
    """Print what the job writes until it ends; exit with its exit code."""
    from heliostat.operations.jobs import follow_job
    from heliostat.view.terminal import View

    follow_job(job, job_address(address), View())


@app.command()
def wait(
    job: JobArgument,
    address: JobAddress = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds; then exit code 1.")] = math.inf,
) -> None:
    """Wait until the job ends; exit with its exit code."""
    from heliostat.operations.jobs import wait_for

    wait_for(job, job_address(address), timeout)


@app.command()
def stop(job: JobArgument, address: JobAddress = None) -> None:
    """Stop the job; a run stores a checkpoint first."""
    from heliostat.operations.jobs import stop_job
    from heliostat.view.terminal import View

    stop_job(job, job_address(address), View())
