"""A gang of which one member runs out of memory, while the other one waits for it."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from heliostat.infra.config.strict import build
from heliostat.infra.storage.config import StorageConfig
from heliostat.train import tasks
from heliostat.train.config import TrainConfig
from heliostat.train.data.config import DataConfig
from heliostat.train.data.prepared import prepare
from heliostat.tune.failures import Failure, failure
from heliostat.tune.gang import TOGETHER_SECONDS
from tests.waiting import until

TRAIN = {
    "workers": 2, "global_batch_size": 24, "learning_rate": 0.003, "max_steps": 12, "epochs": 9, "precision": "fp32",
    "dropout": 0.0, "warmup": 0.0, "zero_stage": 2, "checkpoint_every": 5,
}  # fmt: skip


class Member:
    """A worker of a gang of two."""

    def join(self, rank: int, port: int) -> int:
        """Joins the process group; returns the process's id."""
        from heliostat.train.parallel import distributed

        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        distributed.configure_process(1)
        self.world = distributed.join("cpu")
        return os.getpid()

    def train(self, folder: Path, fingerprint: str, limit: int | None, fails_at: int | None) -> list[tuple[float, int]]:
        """The loss and the micro-batch of each step; memory runs out before step `fails_at` has ended, if given."""
        from heliostat.infra.storage.store import open_store
        from heliostat.train.build import RunInputs, build_run
        from heliostat.train.checkpoints.checkpoint import Checkpoints
        from heliostat.train.data.prepared import open_prepared
        from heliostat.train.engine import release
        from heliostat.train.loop import fit
        from heliostat.train.micro_batch import sizing_out_of_memory

        task = tasks.get("text-classification")
        done: list[tuple[float, int]] = []
        prepared = open_prepared(StorageConfig(url=str(folder / "storage")), fingerprint)
        run = build_run(RunInputs(task, folder / "model", prepared), build(TrainConfig, TRAIN), self.world, limit)
        loss = task.loss

        def full(model: Any, batch: Any) -> Any:
            if len(done) + 1 == fails_at:
                assert run.checkpoints is not None
                run.checkpoints.wait()
                raise MemoryError
            return loss(model, batch)

        vars(task)["loss"] = full
        points = Checkpoints(open_store(str(folder / "storage")), "checkpoints", self.world, {})
        run = replace(run, checkpoints=points, on_step=lambda one: done.append((one.loss, one.micro_batch_size)))
        try:
            with sizing_out_of_memory(run):
                list(fit(run))
        finally:
            del vars(task)["loss"]
        release(run.engine)
        return done


def settle(calls: list[Any], seconds: float = 120) -> list[Any]:
    """What the members' calls came to: a value or an exception; None for those that wait for one that failed."""

    def outcome(call: Any) -> Any:
        try:
            return ray.get(call)
        except RayError as error:
            return getattr(error, "cause", None) or error

    found: dict[Any, Any] = {}
    until = time.monotonic() + seconds
    while (waiting := [call for call in calls if call not in found]) and time.monotonic() < until:
        for call in ray.wait(waiting, timeout=1)[0]:
            found[call] = outcome(call)
            if isinstance(found[call], Exception):
                until = min(until, time.monotonic() + TOGETHER_SECONDS)
    return [found.get(call) for call in calls]


def gang() -> tuple[list[Any], list[int]]:
    """Two members that have joined, and the ids of their processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [ray.remote(num_cpus=1)(Member).remote() for _ in range(2)]
    return members, ray.get([member.join.remote(rank, port) for rank, member in enumerate(members)])


def is_gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def fingerprint(tmp_path: Path, tiny_encoder: Path, tiny_values: dict[str, Any]) -> Iterator[str]:
    """The prepared reviews, beside a model, with a Ray to train on."""
    shutil.copytree(tiny_encoder, tmp_path / "model")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        data = build(DataConfig, tiny_values["data"])
        encoder = tasks.get("text-classification").encoder(data, tmp_path / "model")
        yield prepare(data, encoder, StorageConfig(url=str(tmp_path / "storage"))).fingerprint
    finally:
        ray.shutdown()


def test_the_trial_goes_on_with_half_the_micro_batch_on_a_gang_that_takes_its_place(
    tmp_path: Path, fingerprint: str
) -> None:
    members, processes = gang()
    calls = [
        member.train.remote(tmp_path, fingerprint, None, 8 if rank == 1 else None)
        for rank, member in enumerate(members)
    ]
    found = failure(settle(calls), 12)
    assert found == Failure("memory", "worker 1: out of memory with 12 records in a pass", 6)
    for member in members:
        ray.kill(member)
    until(lambda: all(map(is_gone, processes)), "members gone", 60)

    members, _ = gang()
    resumed = settle([member.train.remote(tmp_path, fingerprint, found.limit, None) for member in members])
    assert failure(resumed, 6) is None
    shutil.rmtree(tmp_path / "storage" / "checkpoints")
    warm = settle([member.train.remote(tmp_path, fingerprint, None, None) for member in members])
    assert failure(warm, 12) is None
    assert [size for _, size in resumed[0]] == [6] * 7
    assert [size for _, size in warm[0]] == [12] * 12
    assert [loss for loss, _ in resumed[0]] == pytest.approx([loss for loss, _ in warm[0][5:]], rel=1e-3)
