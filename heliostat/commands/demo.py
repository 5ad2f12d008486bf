"""`heliostat demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import DryRun, planned
from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def demo(
    recipe: Annotated[str, typer.Argument(help="`sentiment` or `chat`.")] = "sentiment",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint running.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Walk one real job through every stage: prepare, tune, train, evaluate, publish, serve, ask, watch."""
    from heliostat.demo import DEMOS, run_demo

    if recipe not in DEMOS:
        raise ConfigError(f"demo: {recipe!r} given; {' or '.join(DEMOS)} is allowed")
    spec = load_spec(recipe, DEMOS[recipe])
    if not planned(spec, dry_run, "prepare, tune, train, evaluate, publish, serve, ask"):
        run_demo(spec, keep)
