"""`heliostat experiment`: two versions behind one endpoint; `heliostat serve --canary` or `--ab` begins one."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Two versions behind one endpoint: show, promote, stop.")
Name = Annotated[str, typer.Argument(help="The endpoint.")]


@app.command("show")
def show(name: Name) -> None:
    """What both versions did, and whether they differ; of the last one where none runs."""
    from heliostat.operations.experiment import show_experiment

    show_experiment(name)


@app.command("promote")
def promote(name: Name) -> None:
    """Let the candidate answer everything, and end the experiment."""
    from heliostat.operations.experiment import promote_candidate

    promote_candidate(name)


@app.command("stop")
def stop(name: Name) -> None:
    """Let the baseline answer everything, and take the candidate away."""
    from heliostat.operations.experiment import stop_experiment

    stop_experiment(name)
