"""A load test against what a spec promises."""

from __future__ import annotations

import pytest

from heliostat.infra.errors import ResourceError
from heliostat.operations import bench as benching
from heliostat.serve.bench.target import Sample
from heliostat.serve.bench.verdict import verdicts
from heliostat.serve.objectives import Objectives
from heliostat.view.terminal import View


def samples(*errors: str, seconds: float = 0.2) -> list[Sample]:
    """Requests that are due each second; those without an error are answered in `seconds`, and begun in half of it."""
    pieces = [seconds / 2, seconds]
    return [
        Sample(float(due), error=error, ended=due + seconds, pieces=[due + one for one in pieces])
        for due, error in enumerate(errors)
    ]


def test_refusals_are_no_faults_and_what_is_cut_or_late_is() -> None:
    promised = Objectives(availability=0.9)
    [kept] = verdicts(samples(*[""] * 9, "HTTP 429"), promised)
    assert (kept.measured, kept.is_kept) == (1.0, True)
    for fault in ("HTTP 503", "timed out", "stream cut off", "ClientOSError"):
        [missed] = verdicts(samples(*[""] * 8, fault, fault), promised)
        assert (missed.measured, missed.is_kept) == (0.8, False)


def test_times_are_measured_at_the_promised_quantile() -> None:
    promised = Objectives(latency_seconds={"p50": 0.25, "p99": 0.25}, first_token_seconds={"p95": 0.05})
    mixed = samples(*[""] * 95) + samples(*[""] * 5, seconds=1.0)
    found = {one.objective: one for one in verdicts(mixed, promised)}
    assert found["latency_seconds.p50"].measured == pytest.approx(0.2)
    assert found["latency_seconds.p99"].measured == pytest.approx(1.0)
    kept = {name: one.is_kept for name, one in found.items()}
    assert {name for name, is_kept in kept.items() if is_kept} == {"availability", "latency_seconds.p50"}


def test_what_was_not_measured_is_not_kept() -> None:
    found = verdicts(samples("HTTP 500"), Objectives(latency_seconds={"p95": 1}))
    assert [(one.measured, one.is_kept) for one in found] == [(0.0, False), (None, False)]
    assert not any(one.is_kept for one in verdicts([], Objectives()))


def test_an_objective_that_is_missed_ends_the_command_and_is_named() -> None:
    promised = Objectives(latency_seconds={"p50": 0.1, "p95": 0.3})
    with pytest.raises(ResourceError, match=r"^http://x: serve.objectives missed: latency_seconds.p50$"):
        benching.report_verdicts(verdicts(samples("", ""), promised), "http://x", View())
    benching.report_verdicts(verdicts(samples("", ""), Objectives()), "http://x", View())
