from __future__ import annotations

from collections import Counter

import pytest

from heliostat.infra.metrics.of_clients import MOST_KEYS
from heliostat.serve.objectives import Objectives
from tests.unit.serve.conftest import Recorded


def test_tokens_that_come_together_share_the_time_since_those_before(recorded: Recorded) -> None:
    recorded.metrics.inter_token(0.3, tokens=3)
    assert recorded.of("heliostat_inter_token_seconds") == [pytest.approx(0.1)] * 3


def test_a_replica_tells_a_bounded_number_of_keys_apart(recorded: Recorded) -> None:
    for number in (*range(10_000), 0):
        recorded.metrics.used(f"key-{number}", requests=1, tokens=2)
    named = {"key-0": 2, **{f"key-{n}": 1 for n in range(1, MOST_KEYS)}, "other": 10_000 - MOST_KEYS}
    assert used(recorded, "heliostat_key_requests_total") == named
    assert used(recorded, "heliostat_key_tokens_total") == {key: 2 * count for key, count in named.items()}


def test_counters_of_a_key_begin_at_zero_when_it_is_read(recorded: Recorded) -> None:
    for _ in range(2):
        recorded.metrics.keys(1000.0, 0, ["shop", "till"])
    assert used(recorded, "heliostat_key_requests_total") == {"shop": 0, "till": 0}
    assert recorded.of("heliostat_key_tokens_total") == [0, 0], "once"
    recorded.metrics.used("till", requests=1)
    assert used(recorded, "heliostat_key_requests_total") == {"shop": 0, "till": 1}


def used(recorded: Recorded, name: str) -> dict[str, float]:
    """The sum of what was counted, by key."""
    found: Counter[str] = Counter()
    for key, value in zip(recorded.labels_of(name, "key"), recorded.of(name), strict=True):
        found[key] += int(value)
    return dict(found)


def test_what_the_spec_promises_is_reported(recorded: Recorded) -> None:
    recorded.metrics.objectives(Objectives(availability=0.99, latency_seconds={"p50": 0.1, "p95": 0.3}))
    assert recorded.of("heliostat_objective_availability_ratio") == [0.99]
    name = "heliostat_objective_seconds"
    assert recorded.labels_of(name, "objective") == ["latency", "latency"]
    assert dict(zip(recorded.labels_of(name, "quantile"), recorded.of(name), strict=True)) == {"p50": 0.1, "p95": 0.3}
