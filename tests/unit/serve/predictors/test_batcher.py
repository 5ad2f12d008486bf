from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from heliostat.serve.predictors.batcher import Batcher, Limits, choose
from tests.unit.serve.conftest import Recorded
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Model:
    """Doubles numbers; holds a batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Event()

    def run(self, batch: list[int]) -> Sequence[int]:
        self.batches.append(batch)
        self.started.release()
        assert self.go.wait(timeout=10)
        if 13 in batch:
            raise ValueError("thirteen")
        return [2 * item for item in batch]

    async def busy(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, True, 10)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model, recorded: Recorded) -> Iterator[Batcher[int, int]]:
    batcher = Batcher(model.run, lambda item: item, Limits(4, 100), recorded.metrics, blank=0, pass_seconds=60)
    yield batcher
    model.go.set()
    batcher.close()
    with pytest.raises(RuntimeError, match="has ended"):
        batcher.check_health()


async def test_requests_that_come_while_the_model_is_busy_go_together(
    model: Model, batcher: Batcher[int, int], recorded: Recorded
) -> None:
    first = asyncio.create_task(batcher.submit([1]))
    await model.busy()
    rest = [asyncio.create_task(batcher.submit([item])) for item in (2, 3, 4)]
    await asyncio.sleep(0.01)
    model.go.set()
    answers = await asyncio.gather(first, *rest)
    assert answers == [[2], [4], [6], [8]]
    assert [sorted(batch) for batch in model.batches] == [[1], [2, 3, 4]]
    assert recorded.of("heliostat_batch_size") == [1, 3]


async def test_each_input_is_timed_while_it_waits_and_while_it_is_computed(
    model: Model, batcher: Batcher[int, int], recorded: Recorded
) -> None:
    first = asyncio.create_task(batcher.submit([1]))
    await model.busy()
    rest = asyncio.create_task(batcher.submit([2, 3]))
    await asyncio.sleep(0.05)
    model.go.set()
    await asyncio.gather(first, rest)
    name = "heliostat_request_phase_seconds"
    until(lambda: len(recorded.of(name)) == 6, "all are timed", seconds=5)
    times = list(zip(recorded.labels_of(name, "phase"), recorded.of(name), strict=True))
    assert [phase for phase, _ in times] == ["queue", "compute", "queue", "queue", "compute", "compute"]
    assert all(seconds >= 0.05 for _, seconds in times[1:4])  # the first is computed while the others wait


async def test_one_request_with_many_items_keeps_their_order(model: Model, batcher: Batcher[int, int]) -> None:
    model.go.set()
    assert await batcher.submit([9, 1, 5, 30, 2, 2]) == [18, 2, 10, 60, 4, 4]
    assert all(len(batch) <= 4 for batch in model.batches)


async def test_an_input_that_fails_fails_its_request_and_no_others_of_its_batch(
    model: Model, batcher: Batcher[int, int], recorded: Recorded
) -> None:
    first = asyncio.create_task(batcher.submit([1]))
    await model.busy()
    rest = [asyncio.create_task(batcher.submit([item])) for item in (2, 13, 4)]
    await asyncio.sleep(0.01)
    model.go.set()
    found = await asyncio.gather(first, *rest, return_exceptions=True)
    assert isinstance(found[2], ValueError)
    assert [found[at] for at in (0, 1, 3)] == [[2], [4], [8]]
    assert [sorted(batch) for batch in model.batches] == [[1], [2, 4, 13], [2], [13], [4]]
    batcher.check_health()
    assert recorded.of("heliostat_batch_size") == [1, 3, 1, 1, 1]


async def test_the_other_inputs_of_a_request_that_failed_are_not_computed(batcher: Batcher[int, int]) -> None:
    told, batches = threading.Event(), []

    def run(batch: list[int]) -> list[int]:
        batches.append(batch)
        if 13 in batch:
            raise ValueError("thirteen")
        assert told.wait(timeout=10)
        return batch

    batcher.run = run
    with pytest.raises(ValueError, match="thirteen"):
        await batcher.submit([13, *[20] * 9])
    told.set()
    assert await batcher.submit([7]) == [7]
    begun = [[20]] if [20] in batches else []  # the request may have heard of its failure before it began
    assert [batch for batch in batches if batch != [0]] == [[13, 20, 20, 20], [13], *begun, [7]]


async def test_results_that_are_not_one_for_each_input_fail(model: Model, batcher: Batcher[int, int]) -> None:
    batcher.run = lambda batch: [0] * (len(batch) + 1)
    with pytest.raises(ValueError, match="2 results for 1 inputs"):
        await batcher.submit([7])


async def test_a_model_that_fails_at_everything_is_unhealthy(batcher: Batcher[int, int]) -> None:
    def fails(batch: list[int]) -> list[int]:
        raise ValueError(f"nothing works, not even {batch}")

    batcher.run = fails
    with pytest.raises(ValueError, match=r"not even \[7\]"):
        await batcher.submit([7])
    await asyncio.to_thread(until, lambda: unhealthy(batcher), "unhealthy", 60)
    with pytest.raises(RuntimeError, match="every pass of the model fails"):
        batcher.check_health()
    batcher.run = lambda batch: batch
    assert await batcher.submit([7]) == [7]
    batcher.check_health()


def unhealthy(batcher: Batcher[int, int]) -> bool:
    with suppress(RuntimeError):
        batcher.check_health()
        return False
    return True


async def test_a_caller_that_left_is_not_computed(model: Model, batcher: Batcher[int, int]) -> None:
    first = asyncio.create_task(batcher.submit([1]))
    await model.busy()
    left, stays = asyncio.create_task(batcher.submit([2])), asyncio.create_task(batcher.submit([3]))
    await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    model.go.set()
    assert [await first, await stays] == [[2], [6]]
    assert model.batches == [[1], [3]]


async def test_nothing_is_taken_after_the_end(recorded: Recorded) -> None:
    batcher = Batcher[str, str](lambda batch: batch, len, Limits(1, 9), recorded.metrics, blank="", pass_seconds=60)
    batcher.close()
    with pytest.raises(RuntimeError, match="shutting down"):
        await batcher.submit(["a"])


@pytest.mark.parametrize(
    ("lengths", "chosen"),
    [
        ([], []),
        ([10], [0]),
        ([10, 50, 11, 9], [0, 2, 3, 1]),  # all fit: four of at most 50 make 200 padded tokens
        ([10, 90, 11, 80, 9, 12], [0, 2, 4, 5]),  # the nearest in length
        ([90, 10, 91, 11], [0, 2]),  # a third would make 273 padded tokens
        ([500, 10], [0]),  # too long for the limit, and alone
        ([10, 10, 10, 10, 10, 10], [0, 1, 2, 3]),  # the oldest first
    ],
)
def test_the_oldest_goes_with_those_nearest_in_length(lengths: list[int], chosen: list[int]) -> None:
    assert choose(lengths, Limits(4, 200)) == chosen


def test_an_item_that_would_be_mostly_padding_waits() -> None:
    lengths = [100, 95, 50, 90, 99]
    assert sorted(choose(lengths, Limits(8, 10_000, padding_share=0.1))) == [0, 1, 3, 4]
    assert sorted(choose(lengths, Limits(8, 10_000, padding_share=0.2))) == [0, 1, 2, 3, 4]
    assert choose([10, 100, 12], Limits(8, 10_000, padding_share=0)) == [0]


def test_where_nothing_is_padded_the_oldest_go_as_long_as_they_fit() -> None:
    lengths = [10, 90, 11, 80, 9, 12]
    assert choose(lengths, Limits(4, 200, padding_share=None)) == [0, 1, 2, 3]
    assert choose(lengths, Limits(8, 130, padding_share=None)) == [0, 1, 2, 4]
    assert choose([500, 10], Limits(8, 130, padding_share=None)) == [0]
