"""`heliostat exporter`: tells Prometheus of runs, published models and storage."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command("exporter")
def exporter(
    spec: Annotated[str | None, typer.Argument(help="A spec, for the storage that it names.")] = None,
    storage: Annotated[str | None, typer.Option(help="s3://bucket/prefix or a folder, instead of a spec.")] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="Address of an S3-compatible server, for --storage.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 9095,
) -> None:
    """Serve metrics of runs, published models and storage, until it is stopped; HELIOSTAT_STORAGE without a spec."""
    from threading import Event

    from heliostat.cluster.session.interrupts import signals_as_interrupt
    from heliostat.commands.common import storage_of
    from heliostat.infra.exporter.server import collector, serving

    found = storage_of(spec, storage, endpoint_url)
    with signals_as_interrupt(), serving(collector(found), host, port) as bound:
        typer.echo(f"metrics of {found.url}: http://{host}:{bound}/metrics; Ctrl-C ends it")
        Event().wait()
