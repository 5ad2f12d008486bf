"""`heliostat doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import Overrides
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def doctor(
    spec: Annotated[str | None, typer.Argument(metavar="[SPEC]", help="Check for this spec too.")] = None,
    overrides: Overrides = None,
    compile_ops: Annotated[bool, typer.Option("--compile", help="Compile DeepSpeed's operators now.")] = False,
) -> None:
    """Check this machine: each line passes, warns or fails, with what to do."""
    from heliostat.cluster.doctor.doctor import checks
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.serve.config import ServeConfig
    from heliostat.view.terminal import View

    loaded = load_spec(spec, overrides or []) if spec else None
    found = checks(
        loaded.storage if loaded else StorageConfig(),
        (loaded.serve if loaded else ServeConfig()).port,
        compile_ops,
    )
    View().table("Doctor", ["", "check", "found", "what to do"], [[c.status, c.name, c.found, c.advice] for c in found])
    if any(check.status == "fail" for check in found):
        raise typer.Exit(1)
