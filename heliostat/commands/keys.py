"""`heliostat keys`: who may ask the endpoints."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated

import typer

from heliostat.infra.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="API keys in the storage: add, list, remove. Endpoints follow in seconds.")
MOST_DAYS = 36_500
Limit = Annotated[int | None, typer.Option(min=1, help="Over all replicas of an endpoint; no limit where left out.")]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, such as `shop`.")],
    days: Annotated[float | None, typer.Option(help="How long it is valid; for ever where left out.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model that it opens; all where left out.")] = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
) -> None:
    """Make a key and show it, this once: only its hash is kept."""
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.infra.storage.store import open_store
    from heliostat.serve.access.keys import add_key

    expires = None if days is None else _end(days)
    if not all(name.strip() for name in model or ()):
        raise ConfigError("--model: '' given; the name of an endpoint or adapter is needed, or no --model for all")
    limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    typer.echo(add_key(open_store(StorageConfig()), name, expires=expires, models=tuple(model or ()), **limits))


def _end(days: float) -> datetime:
    """The time in so many days; raises ConfigError if there is none."""
    if not 0 < days <= MOST_DAYS:
        raise ConfigError(f"--days: {days:g} given; above 0 and at most {MOST_DAYS} is allowed")
    return datetime.now(timezone.utc) + timedelta(days=days)


@app.command("list")
def show() -> None:
    """All keys: name, what they open, until when and how much."""
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.infra.storage.store import open_store
    from heliostat.serve.access.keys import read_keys
    from heliostat.view.terminal import View

    stored = read_keys(open_store(StorageConfig()))
    rows = [
        [
            key.name,
            ", ".join(key.models) or "all",
            f"{key.created:%Y-%m-%d}",
            ("ended " if key.has_expired() else "") + f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never",
            key.requests_per_minute or "",
            key.tokens_per_minute or "",
        ]
        for key in stored.keys.values()
    ]
    View().table("Keys", ["name", "endpoints", "made", "ends (UTC)", "requests/min", "tokens/min"], rows)
    for reason in stored.damaged.values():
        typer.echo(f"opens nothing: {reason}", err=True)


@app.command("remove")
def remove(name: str) -> None:
    """Take a key away; endpoints refuse it within seconds."""
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.infra.storage.store import open_store
    from heliostat.serve.access.keys import remove_key

    remove_key(open_store(StorageConfig()), name)
    typer.echo(f"{name} opens nothing any more")
