"""`heliostat bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def bench(
    url: Annotated[str, typer.Argument(help="The endpoint, such as http://localhost:8000/chat.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="concurrency, rate, requests, kind, model, words, max_tokens …"),
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="HELIOSTAT_API_KEY", help="What the endpoint asks for.")] = None,
    texts: Annotated[Path | None, typer.Option(help="A file with a text to ask with in each line.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    spec: Annotated[
        str | None, typer.Option(help="A spec or recipe: exit code 1 where its serve.objectives are missed.")
    ] = None,
) -> None:
    """Put load on an OpenAI or predict endpoint: throughput, TTFT, inter-token latency, errors."""
    from heliostat.operations.bench import bench as run
    from heliostat.spec import load_spec

    run(url, overrides or [], key, texts, out, load_spec(spec).serve.objectives if spec else None)
