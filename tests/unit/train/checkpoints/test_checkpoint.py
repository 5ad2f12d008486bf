"""Checkpoints exist or they do not."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from heliostat.infra.errors import ConfigError, IntegrityError, StorageError
from heliostat.infra.storage.base import Store
from heliostat.infra.storage.store import open_store
from heliostat.train.checkpoints import checkpoint
from heliostat.train.checkpoints.checkpoint import Checkpoints
from heliostat.train.parallel.distributed import World


class FakeEngine:
    """Saves and loads one number, the way DeepSpeed saves and loads shards."""

    def __init__(self, value: int = 0, stage: int = 1) -> None:
        self.value, self.stage = torch.tensor(value), stage
        self.checkpoint_engine = SimpleNamespace()
        self.module = torch.nn.Linear(1, 1)

    def zero_optimization_stage(self) -> int:
        return self.stage

    def save_checkpoint(self, folder: str, tag: str, **_: bool) -> None:
        (Path(folder) / tag).mkdir()
        self.checkpoint_engine.save({"value": self.value}, str(Path(folder) / tag / "value.pt"))

    def load_checkpoint(self, folder: str, tag: str, load_module_strict: bool) -> tuple[str, dict[str, Any]]:
        self.value = torch.load(Path(folder) / tag / "value.pt")["value"]
        return folder, {}


class Pair(World):
    """Rank 0 of two that both have shards."""

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array, array]

    def from_first(self, make: Callable[[], Any]) -> Any:
        return make()


def checkpoints(store: Store, world: World = World(0, 1, "cpu"), **contract: Any) -> Checkpoints:
    return Checkpoints(store, "runs/a/1/checkpoints", world, {"train.seed": 0, **contract})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "storage"))


def save(points: Checkpoints, step: int, accuracy: float | None = None) -> None:
    points.save(FakeEngine(step), step, {} if accuracy is None else {"accuracy": accuracy})
    points.wait()


def test_a_new_run_starts_at_zero(store: Store) -> None:
    assert checkpoints(store).restore(FakeEngine()) == 0


def test_the_newest_is_restored(store: Store) -> None:
    points = checkpoints(store)
    save(points, 10)
    save(points, 20)
    engine = FakeEngine()
    assert checkpoints(store).restore(engine) == 20
    assert engine.value == 20


def test_the_newest_and_the_best_are_kept(store: Store) -> None:
    points = checkpoints(store)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.6), (4, 0.7), (5, 0.8)):
        save(points, step, accuracy)
    assert [record["step"] for record in points.records()] == [2, 4, 5]
    best = points.best()
    assert best is not None
    assert best["step"] == 2
    engine = FakeEngine()
    points.restore(engine, best)
    assert engine.value == 2
    kept = {record["prefix"] for record in points.records()}
    assert all(any(entry.key.startswith(prefix) for prefix in kept) for entry in store.list(points.prefix)
               if not entry.key.endswith("latest.json"))  # fmt: skip


def test_a_smaller_loss_is_better_where_the_task_says_so(store: Store) -> None:
    points = Checkpoints(store, "runs/a/1/checkpoints", World(0, 1, "cpu"), {}, mode="min", metric="loss")
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0)):
        points.save(FakeEngine(step), step, {"loss": loss})
        points.wait()
    best = points.best()
    assert best is not None
    assert best["step"] == 2


def test_a_metric_that_is_no_number_is_not_the_best(store: Store) -> None:
    points = checkpoints(store)
    for step, accuracy in ((1, float("nan")), (2, 0.5), (3, float("inf")), (4, 0.4)):
        save(points, step, accuracy)
    best = points.best()
    assert best is not None
    assert best["step"] == 2


def test_a_save_that_was_cut_off_is_not_seen(store: Store) -> None:
    points = checkpoints(store)
    save(points, 10)
    shard = next(entry.key for entry in store.list(points.prefix) if entry.key.endswith("value.pt"))
    store.write_bytes(shard.replace("00000010", "00000020"), b"20")
    engine = FakeEngine()
    assert checkpoints(store).restore(engine) == 10


def test_what_was_never_completed_goes_once_a_newer_one_is_there(store: Store) -> None:
    for name in ("00000004-dead", "00000006-dead"):
        store.write_bytes(f"runs/a/1/checkpoints/{name}/rank-00000/bf16.pt", b"half")
    save(checkpoints(store), 5)
    dead = [entry.key for entry in store.list("runs/a/1/checkpoints") if "dead" in entry.key]
    assert dead == ["runs/a/1/checkpoints/00000006-dead/rank-00000/bf16.pt"]


def test_an_altered_shard_is_refused(store: Store, tmp_path: Path) -> None:
    points = checkpoints(store)
    save(points, 10)
    shard = next((tmp_path / "storage").rglob("value.pt"))
    shard.write_bytes(b"11")
    engine = FakeEngine(value=-1)
    with pytest.raises(IntegrityError, match="value"):
        checkpoints(store).restore(engine)
    assert engine.value == -1


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"train.seed": 1}, "train.seed: 1 given"),
        ({"data": "other"}, "data: 'other' given"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(
    store: Store, changed: dict[str, Any], key: str
) -> None:
    save(Checkpoints(store, "c", World(0, 1, "cpu"), {"train.seed": 0, "data": "this"}), 5)
    with pytest.raises(ConfigError, match=key):
        Checkpoints(store, "c", World(0, 1, "cpu"), {"train.seed": 0, "data": "this", **changed}).restore(FakeEngine())


def test_whole_states_do_not_become_shards(store: Store) -> None:
    save(checkpoints(store), 5)
    with pytest.raises(ConfigError, match=r"train\.zero_stage: 0 given, but the checkpoint of step 5 has 1"):
        checkpoints(store).restore(FakeEngine(stage=0))


def test_a_rank_that_never_uploads_is_named_in_bounded_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "DEADLINE_SECONDS", 0.3)
    points = checkpoints(store, Pair(0, 2, "cpu"))
    points.save(FakeEngine(7), 7, {})
    with pytest.raises(StorageError, match=r"step 7.*rank 1 has not uploaded"):
        points.wait()
    assert points.latest() is None


class FullStore:
    """A disk with no room."""

    url = "/full"

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def upload(self, file: Path, key: str) -> None:
        raise StorageError(f"{key}: no space left")


class HeldStore(FullStore):
    """A server that takes nothing until it is let."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.let_go = threading.Event()

    def exists(self, key: str) -> bool:
        assert self.let_go.wait(20)
        return self._inner.exists(key)

    def upload(self, file: Path, key: str) -> None:
        self._inner.upload(file, key)


def test_a_failed_upload_names_the_rank_and_keeps_what_was_there(store: Store) -> None:
    save(checkpoints(store), 10)
    points = checkpoints(FullStore(store))  # type: ignore[arg-type]
    points.save(FakeEngine(20), 20, {})
    with pytest.raises(StorageError, match=r"step 20, rank 0.*no space left"):
        points.wait()
    assert checkpoints(store).restore(FakeEngine()) == 10


def test_training_goes_on_while_the_copy_is_stored(store: Store) -> None:
    points, engine = checkpoints(HeldStore(store)), FakeEngine(10)  # type: ignore[arg-type]
    points.save(engine, 10, {})
    engine.value += 1
    points.store.let_go.set()  # type: ignore[attr-defined]
    points.wait()
    resumed = FakeEngine()
    assert checkpoints(store).restore(resumed) == 10
    assert resumed.value == 10


def test_a_disk_that_is_full_names_the_rank_and_the_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory_error(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", out_of_memory_error)
    points = checkpoints(store)
    points.save(FakeEngine(20), 20, {})
    with pytest.raises(StorageError, match=r"step 20, rank 0: .*value\.pt: cannot be written: .*No space left"):
        points.wait()
    assert points.latest() is None
