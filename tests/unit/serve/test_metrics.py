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
    named = recorded.labels_of("heliostat_key_requests_total", "key")
    assert len(named) == 10_001
    assert Counter(named) == {"key-0": 2, **{f"key-{n}": 1 for n in range(1, MOST_KEYS)}, "other": 10_000 - MOST_KEYS}
    assert recorded.labels_of("heliostat_key_tokens_total", "key") == named
    assert set(recorded.of("heliostat_key_tokens_total")) == {2}


def test_what_the_spec_promises_is_reported(recorded: Recorded) -> None:
    recorded.metrics.objectives(Objectives(availability=0.99, latency_seconds={"p50": 0.1, "p95": 0.3}))
    assert recorded.of("heliostat_objective_availability_ratio") == [0.99]
    name = "heliostat_objective_seconds"
    assert recorded.labels_of(name, "objective") == ["latency", "latency"]
    assert dict(zip(recorded.labels_of(name, "quantile"), recorded.of(name), strict=True)) == {"p50": 0.1, "p95": 0.3}
