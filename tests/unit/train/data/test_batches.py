"""The batch plan, checked on many seeded shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from heliostat.train.data.batches import BatchPlan, pad


def plans(count: int = 60) -> Iterator[tuple[BatchPlan, np.random.Generator]]:
    for seed in range(count):
        random = np.random.default_rng(seed)
        records = int(random.integers(1, 400))
        lengths = random.integers(1, 257, records)
        size, bucket = int(random.integers(1, 65)), int(random.integers(1, 8))
        yield BatchPlan(lengths, np.ones(records), size, seed, bucket), random


def test_every_record_comes_once_an_epoch_and_only_the_last_batch_is_short() -> None:
    for plan, _ in plans():
        batches = plan.epoch(3)
        assert len(batches) == plan.steps_per_epoch
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(plan.lengths)))
        assert all(len(batch) == plan.global_batch_size for batch in batches[:-1])


def test_the_shares_of_all_ranks_are_the_batch_at_any_world_size() -> None:
    for plan, random in plans():
        world, micro = int(random.integers(1, 9)), int(random.integers(1, 9))
        batch = plan.at(int(random.integers(0, 3 * plan.steps_per_epoch)))
        shares = [plan.micro_batches(batch, rank, world, micro) for rank in range(world)]
        assert {len(share) for share in shares} == {plan.accumulation(world, micro)}
        assert all(len(part) <= micro for share in shares for part in share)
        dealt = np.concatenate([part for share in shares for part in share])
        assert sorted(dealt.tolist()) == sorted(batch.tolist())


def test_ranks_get_about_as_many_tokens_at_each_micro_step() -> None:
    lengths = np.random.default_rng(0).integers(10, 257, 4096)
    plan = BatchPlan(lengths, np.ones(4096), 64, seed=0)
    for batch in plan.epoch(0):
        shares = [plan.micro_batches(batch, rank, 4, 8) for rank in range(4)]
        for step in range(2):
            tokens = [lengths[share[step]].sum() for share in shares]
            assert max(tokens) <= 1.05 * min(tokens) + 8


def test_records_of_like_length_share_a_batch_and_little_is_padding() -> None:
    lengths = np.random.default_rng(1).integers(10, 257, 6400)
    padded = {
        bucket: sum(lengths[b].max() * len(b) for b in BatchPlan(lengths, lengths, 32, 0, bucket).epoch(0))
        for bucket in (1, 50)
    }
    assert padded[50] < 1.05 * lengths.sum()
    assert padded[1] > 1.6 * lengths.sum()


def test_the_order_is_set_by_seed_and_epoch_and_by_nothing_else() -> None:
    lengths = np.random.default_rng(2).integers(1, 99, 100)

    def order(seed: int, epoch: int) -> list[int]:
        plan = BatchPlan(lengths, lengths, 8, seed)
        plan.epoch(epoch + 1)
        return np.concatenate(plan.epoch(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_long_batches_are_spread_over_the_epoch() -> None:
    lengths = np.arange(1000)
    means = [lengths[batch].mean() for batch in BatchPlan(lengths, lengths, 10, 0, bucket=100).epoch(0)]
    assert means != sorted(means)
    assert abs(np.mean(means[:50]) - np.mean(means[50:])) < 150


def test_the_short_batch_does_not_always_hold_the_longest_records() -> None:
    lengths = np.arange(105)
    last = [BatchPlan(lengths, lengths, 10, seed).epoch(0)[-1] for seed in range(20)]
    assert {len(batch) for batch in last} == {5}
    assert np.mean([lengths[batch].mean() for batch in last]) < 75


def test_a_step_is_found_again_after_a_resume() -> None:
    lengths = np.random.default_rng(3).integers(1, 50, 103)
    plan = BatchPlan(lengths, lengths, 10, seed=5)
    walked = [batch for epoch in range(3) for batch in plan.epoch(epoch)]
    for step in (0, 10, 11, 32):
        assert (BatchPlan(lengths, lengths, 10, seed=5).at(step) == walked[step]).all()


def test_accumulation_keeps_the_global_batch_where_it_does_not_divide() -> None:
    plan = BatchPlan(np.ones(64), np.ones(64), 32, seed=0)
    assert [plan.accumulation(*shape) for shape in [(1, 32), (2, 4), (3, 4), (4, 32)]] == [1, 4, 3, 1]


def test_a_short_batch_leaves_some_ranks_without_records() -> None:
    plan = BatchPlan(np.ones(3), np.ones(3), 16, seed=0)
    sizes = [[len(part) for part in plan.micro_batches(plan.at(0), rank, 4, 2)] for rank in range(4)]
    assert sizes == [[1, 0], [1, 0], [1, 0], [0, 0]]


def test_targets_are_those_of_the_batch() -> None:
    plan = BatchPlan(np.ones(4), np.array([1, 10, 100, 1000]), 2, seed=0)
    assert plan.targets(np.array([1, 3])) == 1010


@pytest.mark.parametrize(
    ("records", "weights", "size"), [(0, 0, 8), (4, 3, 8), (4, 4, 0)], ids=["none", "unequal", "no batch"]
)
def test_shapes_that_do_not_fit_are_refused(records: int, weights: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"needed|must be"):
        BatchPlan(np.ones(records), np.ones(weights), size, seed=0)


def test_padding_reaches_the_next_multiple_of_eight() -> None:
    table = pad([np.array([1, 2, 3], dtype=np.int32), np.arange(9, dtype=np.int32)], -100)
    assert table.dtype == np.int64
    assert table.shape == (2, 16)
    assert table[0].tolist() == [1, 2, 3] + [-100] * 13
    assert table[1].tolist() == list(range(9)) + [-100] * 7


def test_no_rows_still_have_columns() -> None:
    assert pad([], 0).shape == (0, 8)
