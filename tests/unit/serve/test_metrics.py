from __future__ import annotations

import pytest

from heliostat.serve.objectives import Objectives
from tests.unit.serve.conftest import Recorded


def test_tokens_that_come_together_share_the_time_since_those_before(recorded: Recorded) -> None:
    recorded.metrics.inter_token(0.3, tokens=3)
    assert recorded.of("heliostat_inter_token_seconds") == [pytest.approx(0.1)] * 3


def test_what_the_spec_promises_is_reported(recorded: Recorded) -> None:
    recorded.metrics.objectives(Objectives(availability=0.99, latency_seconds={"p50": 0.1, "p95": 0.3}))
    assert recorded.of("heliostat_objective_availability_ratio") == [0.99]
    name = "heliostat_objective_seconds"
    assert recorded.labels_of(name, "objective") == ["latency", "latency"]
    assert dict(zip(recorded.labels_of(name, "quantile"), recorded.of(name), strict=True)) == {"p50": 0.1, "p95": 0.3}
