"""`heliostat doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import Overrides
from heliostat.infra.errors import ConfigError
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def doctor(
    spec: Annotated[str | None, typer.Argument(metavar="[SPEC]", help="Check for this spec too.")] = None,
    overrides: Overrides = None,
    compile_ops: Annotated[bool, typer.Option("--compile", help="Compile DeepSpeed's operators now.")] = False,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Check each node of the Ray cluster, and the links between them, instead."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="With --cluster: host:port of a Ray that this machine is part of, or http://HOST:8265 of a "
            "dashboard, where the checks run as a job; else the spec's, RAY_ADDRESS, the detached one.",
        ),
    ] = None,
    bandwidth: Annotated[
        bool,
        typer.Option(
            "--bandwidth/--no-bandwidth",
            help="With --cluster: measure all-reduces for 30 s. Takes no CPU from Ray, but networks are busy.",
        ),
    ] = True,
) -> None:
    """Check this machine, or a cluster: each line passes, warns or fails, with what to do."""
    if not cluster and (address or not bandwidth):
        raise ConfigError(
            f"{'--address' if address else '--no-bandwidth'}: given without --cluster, which it belongs to"
        )
    if cluster and compile_ops:
        raise ConfigError("--compile: given with --cluster; it compiles on this machine, so give it alone")
    loaded = load_spec(spec, overrides or []) if spec else None
    from heliostat.operations import doctor as work

    is_well = work.check_cluster(loaded, address, bandwidth) if cluster else work.check_machine(loaded, compile_ops)
    if not is_well:
        raise typer.Exit(1)
