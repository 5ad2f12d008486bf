"""The KV cache without a model: what is allocated, and what it keeps."""

from __future__ import annotations

import random

import pytest
import torch

from heliostat.serve.engines import kv_cache
from heliostat.serve.engines.kv_cache import KVCache, rounded

HEADS, SIZE, LAYERS = 2, 4, 3


def filled(cache: KVCache, first_row: int, lengths: list[int], value: float) -> None:
    """Prefills prompts of these lengths with one value."""
    cache.read_prompts(first_row, lengths)
    new = torch.full((len(lengths), HEADS, max(lengths), SIZE), value)
    for layer in range(LAYERS):
        cache.update(new + layer, -new, layer)


def held(cache: KVCache, row: int, length: int) -> set[float]:
    return set(cache.keys[0][row, :, :length].flatten().tolist())


@pytest.mark.parametrize("limit", [512, 600, 1000, 4096])
def test_what_is_allocated_stays_below_the_limit_and_near_what_is_needed(limit: int) -> None:
    drawn, cache = random.Random(limit), KVCache()
    cache.fit(1, 10, limit)
    filled(cache, 0, [10], 7)
    for _ in range(300):
        positions = drawn.randint(10, 512)
        rows = drawn.randint(1, max(1, limit // positions))
        cache.fit(rows, positions, limit)
        shapes = {buffer.shape for buffer in [*cache.keys, *cache.values]}
        assert shapes == {(cache.rows, HEADS, cache.positions, SIZE)}
        assert rows <= cache.rows
        assert positions <= cache.positions
        assert cache.rows * cache.positions <= limit
        allocated, needed = rounded(rows, positions, limit)
        assert cache.rows * cache.positions <= 2 * allocated * needed
        assert held(cache, 0, 10) == {7}


def test_sizes_that_change_little_are_not_allocated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache()
    cache.fit(5, 200, 10_000)
    filled(cache, 0, [3], 1)
    before = [id(buffer) for buffer in cache.keys]
    for rows, positions in ((8, 256), (5, 130), (7, 201), (4, 256)):
        cache.fit(rows, positions, 10_000)
    assert [id(buffer) for buffer in cache.keys] == before


def test_one_request_may_have_more_than_the_limit() -> None:
    cache = KVCache()
    cache.fit(1, 700, 512)
    assert (cache.rows, cache.positions) == (1, 700)


def test_a_cache_whose_memory_ends_half_way_keeps_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache()
    cache.fit(4, 128, 10_000)
    filled(cache, 0, [100, 100], 5)
    resized, calls = kv_cache._resized, []

    def ends(*given: object) -> torch.Tensor:
        calls.append(given)
        if len(calls) == 3:
            raise MemoryError
        return resized(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(kv_cache, "_resized", ends)
    with pytest.raises(MemoryError):
        cache.fit(2, 1024, 2048)
    assert (cache.rows, cache.positions) == (2, 128)
    assert all(len(buffer) >= 2 and buffer.shape[2] >= 128 for buffer in [*cache.keys, *cache.values])
    assert held(cache, 1, 100) == {5}
    monkeypatch.undo()
    cache.fit(2, 1024, 2048)
    assert (cache.rows, cache.positions) == (2, 1024)
    assert held(cache, 1, 100) == {5}
