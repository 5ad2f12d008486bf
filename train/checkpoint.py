"""Checkpoints that exist or do not: every rank's shard, then the checkpoint's record, then the pointer.

    checkpoints/<step>-<attempt>/rank-00000/   that rank's files, a bundle with sizes and checksums
    checkpoints/<step>-<attempt>/checkpoint.json   written when the bundles of all ranks are there
    checkpoints/latest.json   names the newest complete one

DeepSpeed writes the shards to local disk while training waits; they are uploaded beside training.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat.infra import bundle
from heliostat.infra.errors import ConfigError, NotFoundError, StorageError
from heliostat.infra.storage import Store
from heliostat.train.distributed import World

POINTER = "latest.json"
RECORD = "checkpoint.json"
TAG = "shards"
DEADLINE_SECONDS = 600.0
"""How long rank 0 waits for the other ranks' uploads."""


@dataclass
class Checkpoints:
    """The checkpoints of one run, seen from one rank."""

    store: Store
    prefix: str
    """Where they are, such as `runs/<run id>/checkpoints`."""
    world: World
    contract: Mapping[str, Any]
    """What must be the same for a resumed run to continue this one: key -> value."""
    keep: int = 2
    mode: str = "max"
    metric: str = "accuracy"
    _uploader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _pending: Future[None] | None = None
    _attempt: str = ""

    def save(self, engine: Any, step: int, metrics: Mapping[str, float]) -> None:
        """Writes this rank's shard to local disk and starts its upload; waits for the one before to finish.

        Raises StorageError where that earlier upload failed, naming the rank and what it was doing.
        """
        self.wait()
        self._attempt = self._attempt or self.world.from_first(uuid.uuid4().hex[:8])
        local = Path(tempfile.mkdtemp(prefix="heliostat-checkpoint-"))
        engine.save_checkpoint(str(local), tag=TAG, save_latest=False)
        record = {
            "step": step,
            "metrics": dict(metrics),
            "world_size": self.world.size,
            "zero_stage": engine.zero_optimization_stage(),
            "contract": dict(self.contract),
        }
        self._pending = self._uploader.submit(self._upload, local, f"{self.prefix}/{step:08d}-{self._attempt}", record)

    def wait(self) -> None:
        """Returns when no upload is under way; raises StorageError where the last one failed."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def restore(self, engine: Any, record: Mapping[str, Any] | None = None) -> int:
        """Loads the newest complete checkpoint, or that of `record`, into `engine` and returns its step; 0 if none.

        Raises ConfigError where it belongs to another model, data or schedule, naming the key.
        """
        record = record or self.world.from_first(self.latest())
        if record is None:
            return 0
        self._check(record, engine)
        with tempfile.TemporaryDirectory(prefix="heliostat-resume-") as folder:
            load_shards(engine, self._fetch(record, Path(folder)))
        return record["step"]

    def latest(self) -> dict[str, Any] | None:
        """The record of the newest complete checkpoint; None if there is none."""
        try:
            pointer = bundle.read_pointer(self.store, f"{self.prefix}/{POINTER}")
        except NotFoundError:
            return None
        return json.loads(self.store.read_bytes(f"{pointer['prefix']}/{RECORD}"))

    def best(self) -> dict[str, Any] | None:
        """The record of the complete checkpoint with the best validation metric; None if none has any."""
        scored = [record for record in self.records() if self.metric in record["metrics"]]
        pick = max if self.mode == "max" else min
        return pick(scored, key=lambda record: record["metrics"][self.metric], default=None)

    def records(self) -> list[dict[str, Any]]:
        """The records of all complete checkpoints, oldest first."""
        keys = [entry.key for entry in self.store.list(self.prefix) if entry.key.endswith("/" + RECORD)]
        return sorted((json.loads(self.store.read_bytes(key)) for key in keys), key=lambda record: record["step"])

    def _upload(self, local: Path, prefix: str, record: dict[str, Any]) -> None:
        rank = self.world.rank
        try:
            bundle.publish_directory(self.store, f"{prefix}/rank-{rank:05d}", local)
            if self.world.is_first:
                record |= {"prefix": prefix, "ranks": self._wait_for_ranks(prefix)}
                self.store.write_bytes(f"{prefix}/{RECORD}", json.dumps(record).encode())
                bundle.write_pointer(self.store, f"{self.prefix}/{POINTER}", {"prefix": prefix})
                self._retire()
        except StorageError as error:
            raise StorageError(f"checkpoint of step {record['step']}, rank {rank}: {error}") from error
        finally:
            shutil.rmtree(local, ignore_errors=True)

    def _wait_for_ranks(self, prefix: str) -> list[str]:
        """The digests of the ranks' bundles, once all are there."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        digests: list[str] = []
        while len(digests) < self.world.size:
            try:
                digests.append(bundle.read_manifest(self.store, f"{prefix}/rank-{len(digests):05d}").digest)
            except NotFoundError:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"rank {len(digests)} has not uploaded its shard in {DEADLINE_SECONDS:.0f} s"
                    ) from None
                time.sleep(0.1)
        return digests

    def _retire(self) -> None:
        """Deletes all but the newest `keep` and the best."""
        records, best = self.records(), self.best()
        kept = {record["prefix"] for record in records[-self.keep :]} | ({best["prefix"]} if best else set())
        for record in records:
            if record["prefix"] not in kept:
                self.store.delete(f"{record['prefix']}/{RECORD}")
                self.store.delete(record["prefix"])

    def _check(self, record: Mapping[str, Any], engine: Any) -> None:
        then = {
            **record["contract"],
            "train.workers": record["world_size"],
            "train.zero_stage": record["zero_stage"],
        }
        now = {
            **self.contract,
            "train.workers": self.world.size,
            "train.zero_stage": engine.zero_optimization_stage(),
        }
        for key, value in then.items():
            if now.get(key) != value:
                raise ConfigError(
                    f"{key}: {now.get(key)!r} given, but the checkpoint of step {record['step']} has {value!r}; "
                    "resume with that, or start a new run"
                )

    def _fetch(self, record: Mapping[str, Any], folder: Path) -> Path:
        """All ranks' shards in one folder, checked."""
        merged = folder / "all" / TAG
        merged.mkdir(parents=True)
        for rank, digest in enumerate(record["ranks"]):
            source = folder / f"rank-{rank}"
            bundle.fetch_directory(self.store, f"{record['prefix']}/rank-{rank:05d}", source, digest=digest)
            for file in (source / TAG).iterdir():
                file.rename(merged / file.name)
        return merged.parent


def load_shards(engine: Any, folder: Path) -> None:
    """Loads model, optimizer and counters from DeepSpeed's files in `folder`."""
    path, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if path is None:
        raise StorageError(f"{folder}: DeepSpeed found no checkpoint that it can load")
