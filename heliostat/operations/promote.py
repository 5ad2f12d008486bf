"""`heliostat models promote`: an alias, and the folder that a cluster is deployed from."""

from __future__ import annotations

from pathlib import Path

from heliostat.cluster.kubernetes import pin
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig


def promote(storage: StorageConfig, name: str, version: int, alias: str, into: Path | None) -> list[str]:
    """Points the alias at a version and, with `into`, lets a rendered folder serve it; returns what to say.

    The folder is looked at first: raises ConfigError, before the alias is moved, if it is of another model or was
    edited. Raises ModelError if there is no such version.
    """
    found = pin.holder(into, name) if into else None
    model = registry.promote(storage, name, version, alias)
    moved = f"{name}@{alias} is version {model.version}"
    if found is None:
        return [f"{moved}; heliostat serve puts it to work"]
    before = found.pin.version
    changed = pin.write(found, pin.Pin.of(model))
    what = f"was {before}" if changed else "as it was"
    return [moved, f"{found.folder / found.name}: version {model.version}, {what}; nothing is committed or applied"]
