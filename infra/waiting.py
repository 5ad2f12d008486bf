"""What MLflow has not been told: kept in storage, under `waiting/`, until a command reaches it and sends it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from uuid import uuid4

from heliostat.infra import log
from heliostat.infra.errors import StorageError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store

PREFIX = "waiting"
_LOOK_SECONDS = 8.0
"""How long storage is given to tell what waits: the registry can be asked without it."""
_log = log.get(__name__)


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return int(time.time() * 1000)


@dataclass
class Publication:
    """A published bundle that is to become the next version of a model."""

    name: str
    url: str
    digest: str
    """SHA-256 of the bundle's manifest."""
    metrics: dict[str, float]


@dataclass
class Waiting:
    """The part of a run that MLflow has not been told; empty most of the time."""

    experiment: str
    name: str
    run_id: str | None = None
    """MLflow's id of the run; None until MLflow has created it."""
    experiment_id: str | None = None
    started_ms: int = field(default_factory=now_ms)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    """(name, value, milliseconds since 1970, step)."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts by the names of their files."""
    status: str | None = None
    ended_ms: int | None = None
    publication: Publication | None = None

    @property
    def is_empty(self) -> bool:
        """Whether MLflow knows all."""
        parts = (self.params, self.tags, self.metrics, self.files, self.status, self.publication)
        return self.run_id is not None and not any(parts)


def keep(storage: StorageConfig, waiting: Waiting) -> None:
    """Stores what waits under a key of its own, in the order of time; raises StorageError if that fails."""
    _write(storage, f"{PREFIX}/{waiting.started_ms}-{uuid4().hex[:8]}.json", waiting)


def update(storage: StorageConfig, key: str, waiting: Waiting) -> None:
    """Stores what is still waiting under `key`, or deletes it if that is nothing; a failure of storage is logged."""
    try:
        if waiting.is_empty:
            open_store(storage).delete(key)
        else:
            _write(storage, key, waiting)
    except StorageError as error:
        _log.warning("what MLflow has been told cannot be noted: %s", error)


def stored(storage: StorageConfig) -> Iterator[tuple[str, Waiting]]:
    """Everything that waits, oldest first, with its key; what cannot be read is left out with a warning."""
    store = open_store(storage)
    try:
        keys = [entry.key for entry in open_store(storage, deadline_seconds=_LOOK_SECONDS).list(PREFIX)]
    except StorageError as error:
        _log.warning("what waits for MLflow cannot be looked for: %s", error)
        return
    for key in keys:
        try:
            yield key, _read(store.read_bytes(key))
        except (StorageError, ValueError, TypeError) as error:
            _log.warning("%s/%s: what waits for MLflow cannot be read: %s", store.url, key, error)


def _write(storage: StorageConfig, key: str, waiting: Waiting) -> None:
    open_store(storage).write_bytes(key, json.dumps(asdict(waiting)).encode())  # with NaN, which JSON proper lacks


def _read(data: bytes) -> Waiting:
    values = json.loads(data)
    published, metrics = values.pop("publication"), [tuple(one) for one in values.pop("metrics")]
    return Waiting(**values, metrics=metrics, publication=Publication(**published) if published else None)
