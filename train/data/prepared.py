"""Prepared data: encoded records, cleaned and split; created once and reused until the input changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.cluster.folders import cache_folder, fill
from heliostat.infra import log
from heliostat.infra.checksums import file_digest
from heliostat.infra.errors import IntegrityError, NotFoundError
from heliostat.infra.registry.bundle import (
    Manifest,
    delete_directory,
    fetch_directory,
    publish_once,
    read_manifest,
    verify_directory,
)
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.config import StorageConfig, is_s3
from heliostat.infra.storage.store import open_store
from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder, Progress
from heliostat.train.data.formats.source import Source, find_source
from heliostat.train.data.sources.resolve import resolve

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 2
"""Increased when the same input would be prepared differently; old results are then not reused."""
_log = log.get(__name__)


@dataclass(frozen=True)
class Prepared:
    """Prepared data in storage, with a local copy.

    Each split is a table of `input_ids` (list of int32), `features` (list of float32) or `pixels` (list of uint8),
    `length` (tokens, int32; 1 without tokens), `targets` (int32: number of loss targets), `record_id` (16 hex digits of
    the text's hash), `label` (text) or `labels` (list of int32, -100 for no loss), and in the test split `text`. The
    encoder's saved files are in the same folder.
    """

    fingerprint: str
    url: str
    directory: Path
    labels: tuple[str, ...]
    """Classes of the training split, sorted; empty for tasks without classes."""
    counts: dict[str, int]
    """Records that were read, filtered, empty, damaged, duplicates, conflicting, beyond_limit, without_target,
    truncated and in_several_parts; those in each split; `tokens` of all splits, and `unknown_tokens` among them."""
    reused: bool = False

    @property
    def unknown_share(self) -> float:
        """The share of tokens that stand for what the tokenizer does not know."""
        return self.counts.get("unknown_tokens", 0) / max(1, self.counts.get("tokens", 0))

    def split(self, name: str) -> pa.Table:
        """The records of `train`, `validation` or `test`, memory-mapped: processes share the pages."""
        import pyarrow as pa

        with pa.memory_map(str(self.directory / f"{name}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()


def prepare(data: DataConfig, encoder: Encoder, storage: StorageConfig, progress: Progress | None = None) -> Prepared:
    """The data encoded, in storage under `data/<fingerprint>`; prepared with Ray Data if it is not there, or damaged.

    Needs a Ray session unless `find_prepared` finds the result. Raises a one-line DataError if the data cannot be used,
    ResourceError without a Ray session; nothing is stored then.
    """
    source, fingerprint = _identified(data, encoder, storage)
    if found := _found(storage, fingerprint):
        return found
    from heliostat.train.data.prepare.pipeline import build

    on_progress = progress or _silent
    with scratch("data") as staging:
        summary = build(source, data, encoder, staging, on_progress)
        on_progress("publish", 0, 0)
        metadata = {**summary, "source": data.source, "format": FORMAT_VERSION}
        store, prefix = open_store(storage), f"data/{fingerprint}"
        if _damage(storage, fingerprint):
            delete_directory(store, prefix)
        publish_once(store, prefix, staging, metadata)
    return open_prepared(storage, fingerprint)


def find_prepared(data: DataConfig, encoder: Encoder, storage: StorageConfig) -> Prepared | None:
    """The result that `prepare` would reuse, or None; verifies its checksums, and does not start Ray."""
    _, fingerprint = _identified(data, encoder, storage)
    return _found(storage, fingerprint)


def open_prepared(storage: StorageConfig, fingerprint: str) -> Prepared:
    """The prepared data with this fingerprint, downloaded to this machine if storage is remote.

    Raises NotFoundError if there is none, IntegrityError if its files differ from its manifest.
    """
    store, prefix = open_store(storage), f"data/{fingerprint}"
    manifest = read_manifest(store, prefix)
    return Prepared(
        fingerprint=fingerprint,
        url=f"{store.url}/{prefix}",
        directory=_local_copy(storage, prefix, manifest),
        labels=tuple(manifest.metadata["labels"]),
        counts=dict(manifest.metadata["counts"]),
    )


def fingerprint_of(source: Source, data: DataConfig, encoder: Encoder) -> str:
    """16 hex digits that change with the content of the files, the `data` section or the encoder."""
    parts = {
        "version": FORMAT_VERSION,
        "format": source.format,
        "files": [[source.name_part(file), file_digest(file)] for file in [*source.files, *source.label_files]],
        "data": data.model_dump(mode="json", exclude={"source", "format", "augment"}),
        "encoder": [type(encoder).__module__, type(encoder).__qualname__, encoder.fingerprint()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _identified(data: DataConfig, encoder: Encoder, storage: StorageConfig) -> tuple[Source, str]:
    source = find_source(resolve(data.source, storage, "data.source"), data.format)
    return source, fingerprint_of(source, data, encoder)


def _found(storage: StorageConfig, fingerprint: str) -> Prepared | None:
    """The prepared data if they are there and whole; logs which file is damaged."""
    if problem := _damage(storage, fingerprint):
        _log.warning("%s; the data are prepared anew", problem)
        return None
    try:
        return replace(open_prepared(storage, fingerprint), reused=True)
    except NotFoundError:
        return None


def _damage(storage: StorageConfig, fingerprint: str) -> IntegrityError | None:
    """What is wrong with the stored prepared data; None if they are whole, or not there.

    A damaged copy of remote data is deleted from the cache, and downloaded anew.
    """
    prefix = f"data/{fingerprint}"
    try:
        manifest = read_manifest(open_store(storage), prefix)
        try:
            verify_directory(_local_copy(storage, prefix, manifest), manifest)
        except IntegrityError:
            if not is_s3(storage.url):
                raise
            shutil.rmtree(_cached(manifest), ignore_errors=True)
            _local_copy(storage, prefix, manifest)
    except NotFoundError:
        return None
    except IntegrityError as error:
        return error
    return None


def _silent(stage: str, done: int, total: int) -> None:
    """The default progress callback, which does nothing."""


def _local_copy(storage: StorageConfig, prefix: str, manifest: Manifest) -> Path:
    """The folder itself if storage is local; else a verified copy, cached by its digest."""
    if not is_s3(storage.url):
        return Path(storage.url) / prefix
    store = open_store(storage)
    return fill(
        _cached(manifest),
        lambda staging: fetch_directory(store, prefix, staging, digest=manifest.digest),
    )


def _cached(manifest: Manifest) -> Path:
    return cache_folder() / "data" / manifest.digest[:32]
