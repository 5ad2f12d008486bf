"""Atomic checkpoints: the shards of all ranks, then the checkpoint's record, then the pointer.

        checkpoints/<step>-<attempt>/rank-00000/   files of this rank, if it has any: a bundle with sizes and checksums
        checkpoints/<step>-<attempt>/checkpoint.json   the record, written when the bundles of all ranks are stored
        checkpoints/latest.json   the pointer to the newest complete checkpoint

Training pauses while each rank copies its state in memory; the copy is written to local disk and uploaded in the
background. If a run resumes with another world size or ZeRO stage, the shards are converted when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heliostat.cluster.folders import cache_folder, fill
from heliostat.infra.errors import ConfigError, NotFoundError, StorageError
from heliostat.infra.registry import bundle
from heliostat.infra.storage.base import Store
from heliostat.train.checkpoints import snapshot, universal
from heliostat.train.checkpoints.snapshot import Snapshot
from heliostat.train.parallel.distributed import World

POINTER = "latest.json"
RECORD = "checkpoint.json"
TAG = "shards"
DEADLINE_SECONDS = 600.0
"""Timeout of rank 0 for the other ranks' uploads."""


@dataclass(frozen=True)
class StoreStats:
    """Timings of a checkpoint on this rank."""

    step: int
    wait_seconds: float
    """Time that training paused: for the previous checkpoint to be stored, and for the copy in memory."""
    store_seconds: float
    """Time in the background: writing to disk and uploading."""
    bytes: int
    """Size of this rank's part."""


@dataclass
class Checkpoints:
    """The checkpoints of one run, on one rank."""

    store: Store
    prefix: str
    """Their prefix in storage, such as `runs/<run id>/checkpoints`."""
    world: World
    contract: Mapping[str, Any]
    """Settings that a resumed run must share with this one: key -> value."""
    keep: int = 2
    on_stored: Callable[[StoreStats], None] = lambda _: None
    """Called from a background thread when this rank's part of a checkpoint is stored."""
    mode: str = "max"
    metric: str = "accuracy"
    restored: Mapping[str, Any] = field(default_factory=dict)
    """The record that was restored last."""
    _uploader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _pending: Future[None] | None = None
    _attempt: str = ""

    def save(
        self, engine: Any, step: int, metrics: Mapping[str, float], patience: Mapping[str, Any] | None = None
    ) -> None:
        """Copies this rank's state and stores the copy in the background; first waits for the previous checkpoint.

        `patience` is what the record holds of early stopping.
        Raises StorageError if storing that one failed, naming the rank and what it was doing.
        """
        started = time.perf_counter()
        self.wait()
        self._attempt = self._attempt or self.world.from_first(lambda: uuid.uuid4().hex[:8])
        local = Path(tempfile.mkdtemp(prefix="heliostat-checkpoint-"))
        with snapshot.taken(engine) as files:
            engine.save_checkpoint(str(local), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
        record = {
            "step": step,
            "metrics": dict(metrics),
            "world_size": self.world.size,
            "zero_stage": engine.zero_optimization_stage(),
            "contract": dict(self.contract),
            "patience": dict(patience or {}),
        }
        has_state = self.world.gather(np.array(bool(files)))  # without sharding, only rank 0 has state
        writers = [int(rank) for rank in np.flatnonzero(has_state)]
        prefix = f"{self.prefix}/{step:08d}-{self._attempt}"
        wait_seconds = time.perf_counter() - started
        self._pending = self._uploader.submit(self._store, local, files, prefix, record, writers, wait_seconds)

    @property
    def is_storing(self) -> bool:
        """Whether this rank's last checkpoint is still being stored."""
        return self._pending is not None and not self._pending.done()

    def wait(self) -> None:
        """Waits until the last checkpoint is stored; raises StorageError if that failed."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def restore(self, engine: Any, record: Mapping[str, Any] | None = None) -> int:
        """Loads the newest complete checkpoint, or that of `record`, into `engine`. Returns its step; 0 if none.

        It may have been written with any world size and any ZeRO stage from 1 on. Raises ConfigError if it belongs to
        another model, data or schedule, naming the key.
        """
        record = record or self.world.from_first(self.latest)
        if record is None:
            return 0
        self._check(record, engine)
        now = (self.world.size, engine.zero_optimization_stage())
        same = now == (record["world_size"], record["zero_stage"]) or record["zero_stage"] == 0
        name = hashlib.sha256(json.dumps([record["shards"], same]).encode()).hexdigest()[:16]
        folder = fill(cache_folder() / "resume" / name, lambda folder: self._fetch(record, folder, convert=not same))
        load_shards(engine, folder, from_universal=not same)
        self.restored = record
        self.world.sum(0.0)  # barrier: all ranks of this node have read it
        shutil.rmtree(folder, ignore_errors=True)
        return record["step"]

    def latest(self) -> dict[str, Any] | None:
        """The record of the newest complete checkpoint; None if there is none."""
        return newest(self.store, self.prefix)

    def best(self) -> dict[str, Any] | None:
        """The record of the complete checkpoint with the best validation metric; None if none has a finite one."""
        scored = [one for one in self.records() if math.isfinite(one["metrics"].get(self.metric, math.nan))]
        pick = max if self.mode == "max" else min
        return pick(scored, key=lambda record: record["metrics"][self.metric], default=None)

    def records(self) -> list[dict[str, Any]]:
        """The records of all complete checkpoints, oldest first."""
        keys = [entry.key for entry in self.store.list(self.prefix) if entry.key.endswith("/" + RECORD)]
        return sorted((json.loads(self.store.read_bytes(key)) for key in keys), key=lambda record: record["step"])

    def _store(
        self,
        local: Path,
        files: Snapshot,
        prefix: str,
        record: dict[str, Any],
        writers: Sequence[int],
        wait_seconds: float,
    ) -> None:
        rank, started, size = self.world.rank, time.perf_counter(), 0
        try:
            if rank in writers:
                snapshot.write(files)
                part = bundle.publish_directory(self.store, f"{prefix}/rank-{rank:05d}", local)
                size = sum(file.size_bytes for file in part.files.values())
            if self.world.is_first:
                shards = {f"rank-{writer:05d}": self._wait_for(prefix, writer) for writer in writers}
                record |= {"prefix": prefix, "shards": shards}
                self.store.write_bytes(f"{prefix}/{RECORD}", json.dumps(record).encode())
                bundle.write_pointer(self.store, f"{self.prefix}/{POINTER}", {"prefix": prefix})
                self._retire()
            self.on_stored(StoreStats(record["step"], wait_seconds, time.perf_counter() - started, size))
        except StorageError as error:
            raise StorageError(f"checkpoint of step {record['step']}, rank {rank}: {error}") from error
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def _wait_for(self, prefix: str, rank: int) -> str:
        """Waits for a rank's bundle and returns its digest."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return bundle.read_manifest(self.store, f"{prefix}/rank-{rank:05d}").digest
            except NotFoundError:
                if time.monotonic() > deadline:
                    raise StorageError(f"rank {rank} has not uploaded its shard in {DEADLINE_SECONDS:.0f} s") from None
                time.sleep(0.1)

    def _retire(self) -> None:
        """Deletes all checkpoints but the newest `keep` and the best, and incomplete ones of earlier attempts."""
        records, best = self.records(), self.best()
        kept = {record["prefix"] for record in records[-self.keep :]} | ({best["prefix"]} if best else set())
        for record in records:
            if record["prefix"] not in kept:
                self.store.delete(f"{record['prefix']}/{RECORD}")
        names = {entry.key.removeprefix(f"{self.prefix}/").partition("/")[0] for entry in self.store.list(self.prefix)}
        for name in names - {POINTER}:
            if f"{self.prefix}/{name}" not in kept and name < records[-1]["prefix"].rpartition("/")[2]:
                self.store.delete(f"{self.prefix}/{name}")

    def _check(self, record: Mapping[str, Any], engine: Any) -> None:
        now, stage = dict(self.contract), engine.zero_optimization_stage()
        then = dict(record["contract"])
        if 0 in (stage, record["zero_stage"]):  # unsharded states, which DeepSpeed does not convert to or from shards
            now["train.zero_stage"], then["train.zero_stage"] = stage, record["zero_stage"]
        for key, value in then.items():
            if now.get(key) != value:
                raise ConfigError(
                    f"{key}: {now.get(key)!r} given, but the checkpoint of step {record['step']} has {value!r}; "
                    "resume with that, or start a new run"
                )

    def _fetch(self, record: Mapping[str, Any], folder: Path, convert: bool) -> None:
        """Downloads and verifies all ranks' shards as tag TAG in `folder`; `convert`: in the universal format."""
        merged = folder / ("parts" if convert else TAG)
        merged.mkdir()
        for name, digest in record["shards"].items():
            source = folder / name
            bundle.fetch_directory(self.store, f"{record['prefix']}/{name}", source, digest=digest)
            for file in (source / TAG).iterdir():
                file.rename(merged / file.name)
            shutil.rmtree(source)
        if convert:
            universal.convert(merged, folder / TAG)
            shutil.rmtree(merged)


def newest(store: Store, prefix: str) -> dict[str, Any] | None:
    """The record of the newest complete checkpoint below `prefix`; None if there is none."""
    try:
        pointer = bundle.read_pointer(store, f"{prefix}/{POINTER}")
    except NotFoundError:
        return None
    found: dict[str, Any] = json.loads(store.read_bytes(f"{pointer['prefix']}/{RECORD}"))
    return found


def load_shards(engine: Any, folder: Path, from_universal: bool) -> None:
    """Loads model, optimizer and counters from DeepSpeed's files in `folder`; frozen parameters stay unchanged."""
    strict = all(parameter.requires_grad for parameter in engine.module.parameters())
    if from_universal:
        path, _ = universal.load(engine, folder, TAG, strict)
    else:
        path, _ = engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=strict)
    if path is None:
        raise StorageError(f"{folder}: DeepSpeed found no checkpoint that it can load")
