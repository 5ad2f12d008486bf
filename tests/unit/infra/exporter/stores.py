"""Storages made up for the exporter: as many runs and versions as are asked for, and calls that are counted."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.local import LocalStore


class CountingStore(LocalStore):
    """A folder whose operations are counted."""

    calls: list[str] = []

    def read_bytes(self, key: str) -> bytes:
        """As in LocalStore."""
        self.calls.append(f"read {key}")
        return super().read_bytes(key)

    def list(self, prefix: str = "") -> list[Entry]:
        """As in LocalStore."""
        self.calls.append(f"list {prefix}")
        return super().list(prefix)


def counting_store(folder: Path) -> CountingStore:
    """An empty one."""
    store = CountingStore(str(folder))
    object.__setattr__(store, "calls", [])
    return store


def put(store: LocalStore, key: str, data: bytes = b"1", at: float | None = None) -> None:
    """Stores an object, as if it had been stored at a Unix time."""
    store.write_bytes(key, data)
    if at is not None:
        os.utime(Path(store.url) / key, (at, at))


def put_run(
    store: LocalStore, model: str, run: str, status: str, alive: float, *checkpoints: float, drivers: int = 1
) -> None:
    """A run with its record, the lease of its driver, and checkpoints, each stored at a Unix time."""
    prefix = f"runs/{model}/{run}"
    began = min((alive, *checkpoints)) - 10
    put(store, f"{prefix}/run.json", json.dumps({"run_id": run, "status": status}).encode(), began)
    put(store, f"{prefix}/spec.yaml", b"spec", began)
    put(store, f"{prefix}/driver/{drivers:06d}.json", b"{}", alive)
    for step, at in enumerate(checkpoints):
        for name in ("rank-00000/manifest.json", "rank-00000/state.pt", "checkpoint.json"):
            put(store, f"{prefix}/checkpoints/{step:08d}-a/{name}", b"12345", at)
    if checkpoints:
        put(store, f"{prefix}/checkpoints/latest.json", b"{}", checkpoints[-1])


def version(model: str, number: int, created: float, *aliases: str) -> ModelVersion:
    """A published version."""
    at = datetime.fromtimestamp(created, timezone.utc)
    return ModelVersion(model, number, f"/models/{model}/{number}", "0", "r", at, aliases, {})
