import pickle
import weakref
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from heliostat.infra.errors import TrainingError
from heliostat.train import micro_batch
from heliostat.train.loop import Run
from heliostat.train.micro_batch import (
    PassTooLargeError,
    fit_micro_batch,
    fitting,
    is_out_of_memory,
    report_out_of_memory,
)
from heliostat.train.parallel.distributed import World


class Pair(World):
    """Rank 0 of two, the other of which has room for 3."""

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        return [array, np.array(3)]


def run_on(world: World, size: int = 8) -> Run:
    return cast(Run, SimpleNamespace(world=world, engine=SimpleNamespace(train_micro_batch_size_per_gpu=lambda: size)))


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passes that need 1,000 bytes for the first record and 50 for each more; the peaks that were read."""
    held: list[int] = [0]
    monkeypatch.setattr(micro_batch, "probe", lambda run, size: held.append(1000 + 50 * (size - 1)))
    return held


@pytest.mark.parametrize(("total", "records"), [(2000, 17), (1200, 2), (1100, 1)])
def test_as_many_records_as_nine_tenths_of_the_memory_hold(peaks: list[int], total: int, records: int) -> None:
    assert fitting(run_on(World(0, 1, "cpu")), total, lambda: peaks[-1]) == records


def test_the_rank_with_the_least_room_decides(peaks: list[int]) -> None:
    assert fitting(run_on(Pair(0, 2, "cpu")), 10_000, lambda: peaks[-1]) == 3


class Engine:
    """One with so many records in a pass, that can be taken down."""

    def __init__(self, size: int) -> None:
        self.train_micro_batch_size_per_gpu = lambda: size

    def destroy(self) -> None:
        """Nothing to take down."""


def test_a_run_that_is_too_large_is_gone_before_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1))
    monkeypatch.setattr(micro_batch, "fitting", lambda *_: 3)
    engines: list[weakref.ref[Engine]] = []

    def make_run(limit: int | None) -> Run:
        assert all(engine() is None for engine in engines)
        engine = Engine(limit or 8)
        engines.append(weakref.ref(engine))
        return cast(Run, SimpleNamespace(world=World(0, 1, "cuda"), engine=engine))

    assert fit_micro_batch(make_run, None).engine.train_micro_batch_size_per_gpu() == 3
    assert len(engines) == 2
    assert fit_micro_batch(make_run, 2).engine.train_micro_batch_size_per_gpu() == 2
    assert len(engines) == 3


def test_what_an_allocator_says_is_known() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**50)
    assert is_out_of_memory(found.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


class FakeChannel:
    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.shrink = SimpleNamespace(remote=lambda *values: self.told.append(values))


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> FakeChannel:
    monkeypatch.setattr("ray.get", lambda value: value)
    return FakeChannel()


def test_running_out_of_memory_is_told_with_the_size_and_the_rank(channel: FakeChannel) -> None:
    with pytest.raises(PassTooLargeError) as error, report_out_of_memory(run_on(World(1, 2, "cuda")), channel):
        raise torch.OutOfMemoryError
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)
    assert channel.told == [(8, 1)]


def test_what_ran_out_of_memory_survives_the_way_to_the_driver() -> None:
    error = pickle.loads(pickle.dumps(PassTooLargeError(8, 1)))
    assert (error.size, error.rank, str(error)) == (8, 1, "worker 1: out of memory with 8 records in a pass")


def test_other_errors_are_not_told(channel: FakeChannel) -> None:
    with pytest.raises(RuntimeError, match="shapes"), report_out_of_memory(run_on(World(1, 2, "cuda")), channel):
        raise RuntimeError("shapes do not fit")
    assert channel.told == []


def test_one_record_that_is_too_much_ends_the_run_with_what_to_do(channel: FakeChannel) -> None:
    with (
        pytest.raises(TrainingError, match=r"worker 1: .* lower data\.max_length"),
        report_out_of_memory(run_on(World(1, 2, "cuda"), size=1), channel),
    ):
        raise torch.OutOfMemoryError
    assert channel.told == []


def test_the_board_halves_once_for_ranks_that_run_out_together() -> None:
    from heliostat.train.launch import DriverChannel

    made: Any = DriverChannel()
    assert made.micro_batch_limit() is None
    for rank in (0, 1):
        made.shrink(13, rank)
    assert made.micro_batch_limit() == 6
    assert [event["kind"] for event in made.take()] == ["memory"]
    made.shrink(6, 1)
    assert made.micro_batch_limit() == 3
