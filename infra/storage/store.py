"""Opens storage: a local folder or an S3 bucket, behind one interface (`base.Store`)."""

from __future__ import annotations

from heliostat.infra.storage.base import Store
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.local import LocalStore
from heliostat.infra.storage.measured import MeasuredStore


def open_store(
    storage: StorageConfig | str, endpoint_url: str | None = None, deadline_seconds: float | None = None
) -> Store:
    """The store at a URL or of a spec's section; opening it accesses nothing yet.

    `deadline_seconds` is that of each operation on a bucket, where the usual one is too long to wait.

    Raises ConfigError if the URL is neither a path nor `s3://bucket/prefix`.
    """
    if isinstance(storage, str):
        from heliostat.infra.config.strict import build

        storage = build(StorageConfig, {"url": storage, "endpoint_url": endpoint_url}, source="storage")
    if storage.kind == "local":
        return MeasuredStore(LocalStore(storage.url), storage.kind)
    from heliostat.infra.storage.s3 import Limits, S3Store

    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
    limits = Limits() if deadline_seconds is None else Limits(deadline_seconds=deadline_seconds)
    return MeasuredStore(S3Store(bucket, prefix, storage.endpoint_url, limits), storage.kind)
