"""Serves the exporter's metrics over HTTP, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, start_http_server

from heliostat.infra.errors import ResourceError
from heliostat.infra.exporter.collector import ExporterCollector
from heliostat.infra.exporter.source import EVERY_SECONDS, Source
from heliostat.infra.exporter.storage import StorageLook
from heliostat.infra.registry.registry import watched_models
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store

STORAGE_SECONDS = 20.0
"""Deadline of an operation on a bucket."""


def collector(storage: StorageConfig, every_seconds: float = EVERY_SECONDS) -> ExporterCollector:
    """What tells of the storage and of the registry that belongs to it."""
    store = open_store(storage, deadline_seconds=STORAGE_SECONDS)
    return ExporterCollector(
        Source("storage", StorageLook(store), every_seconds),
        Source("registry", partial(watched_models, storage), every_seconds),
    )


@contextmanager
def serving(found: ExporterCollector, host: str, port: int) -> Iterator[int]:
    """Answers scrapes at `host:port` during the block; yields the port. Raises ResourceError if it cannot be had."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(found)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ResourceError(f"--port: {port} of {host} cannot be had ({error.strerror or error})") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
