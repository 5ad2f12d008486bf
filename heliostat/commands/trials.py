"""`heliostat trials`: the trials of a search, while it runs and afterwards."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import published

Name = Annotated[str, typer.Argument(help="MODEL for its newest search, or MODEL/SEARCH; a spec for MODEL.")]
Number = Annotated[int, typer.Argument(min=0, help="Of the trial.")]
app = typer.Typer(no_args_is_help=True, help="Trials of a search: list, stop, clone.")


@app.command("list")
def show_all(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of each, as JSON.")] = False,
) -> None:
    """All trials, best first."""
    from heliostat.operations import trials
    from heliostat.tune.reports.files import to_json
    from heliostat.view.search import show_search
    from heliostat.view.terminal import View

    state = trials.look_at(*published(name))
    if as_json:
        typer.echo(to_json(state))
    else:
        show_search(View(), state)


@app.command("stop")
def stop(name: Name, trial: Number) -> None:
    """Let a trial go on no further; what it has reached is kept."""
    from heliostat.operations import trials

    typer.echo(trials.stop(*published(name), trial))


@app.command("clone")
def clone(
    name: Name,
    trial: Number,
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What is different.")],
) -> None:
    """Begin a trial from where another one is, with other values."""
    from heliostat.operations import trials

    typer.echo(trials.clone(*published(name), trial, values))
