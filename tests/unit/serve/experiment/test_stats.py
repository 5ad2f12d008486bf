from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from heliostat.serve.experiment.config import Experiment
from heliostat.serve.experiment.coordinator import BASELINE, CANDIDATE, Coordinator, new_arms, verdict
from heliostat.serve.experiment.stats import (
    ALPHA,
    LOG_SCALE,
    RATE_SCALE,
    Arm,
    Moments,
    compare_errors,
    compare_times,
    difference,
)
from heliostat.serve.objectives import Objectives
from tests.waiting import until

EXPERIMENT = Experiment(share=0.1, baseline="3", candidate="4", url="http://127.0.0.1:1/tiny.candidate")


def moments(values: list[float]) -> Moments:
    found = Moments()
    for value in values:
        found.add(value)
    return found


def test_moments_of_parts_are_those_of_the_whole() -> None:
    draw = random.Random(0)
    values = [draw.gauss(3, 2) for _ in range(1000)]
    whole, parts = moments(values), moments(values[:17])
    parts.merge(moments(values[17:400]))
    parts.merge(Moments())
    parts.merge(moments(values[400:]))
    for found in (whole, parts):
        assert found.n == 1000
        assert found.mean == pytest.approx(statistics.fmean(values))
        assert found.variance == pytest.approx(statistics.variance(values))


def test_quantiles_are_right_to_a_bucket() -> None:
    draw = random.Random(1)
    seconds = sorted(draw.lognormvariate(-3, 1) for _ in range(5000))
    arm = Arm()
    for one in seconds:
        arm.add(one)
    for q in (0.5, 0.95, 0.99):
        assert arm.quantile(q) == pytest.approx(seconds[int(q * 5000) - 1], rel=0.05)
    assert Arm().quantile(0.5) is None


def test_looking_all_the_time_finds_no_difference_where_there_is_none() -> None:
    """The usual p-value below ALPHA would come up at some look in more than ALPHA of all experiments."""
    draw, called, called_by_z = random.Random(2), 0, 0
    for _ in range(300):
        one, other = Moments(), Moments()
        seen, seen_by_z = False, False
        for count in range(1, 1001):
            one.add(draw.gauss(0, 0.5))
            other.add(draw.gauss(0, 0.5))
            if count % 10 == 0:
                found = difference(one, other, LOG_SCALE)
                assert found
                seen = seen or found.p_value < ALPHA
                z = found.estimate / math.sqrt(one.variance / count + other.variance / count)
                seen_by_z = seen_by_z or math.erfc(abs(z) / math.sqrt(2)) < ALPHA
        called, called_by_z = called + seen, called_by_z + seen_by_z
    assert called <= 300 * ALPHA * 2
    assert called_by_z > 300 * ALPHA * 2


def test_a_difference_is_found_and_its_interval_holds_it() -> None:
    draw = random.Random(3)
    one = moments([draw.gauss(0, 0.5) for _ in range(2000)])
    other = moments([draw.gauss(0.3, 0.5) for _ in range(500)])
    found = difference(one, other, LOG_SCALE)
    assert found
    assert found.p_value < 1e-6
    assert 0 < found.low < 0.3 < found.high
    assert difference(one, moments([1.0]), RATE_SCALE) is None


def test_the_interval_leaves_out_nothing_where_the_p_value_is_at_its_limit() -> None:
    """Both come from one formula: the interval touches zero where the p-value is ALPHA."""
    one = Moments(1000, 0.0, 999.0)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        found = difference(one, Moments(1000, middle, 999.0), RATE_SCALE)
        assert found
        low, high = (middle, high) if found.low < 0 else (low, middle)
    assert found
    assert found.p_value == pytest.approx(ALPHA, rel=1e-6)


def arms(baseline: tuple[int, int, float], candidate: tuple[int, int, float]) -> dict[str, Arm]:
    """(requests, of which failed, seconds) of each arm, the seconds give or take a quarter."""
    made, draw = new_arms(), random.Random(4)
    for which, (requests, errors, seconds) in ((BASELINE, baseline), (CANDIDATE, candidate)):
        for index in range(requests):
            made[which].add(None if index < errors else seconds * draw.lognormvariate(0, 0.25))
    return made


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [
        ((0, 0, 0.1), (0, 0, 0.1)),
        ((1000, 0, 0.1), (1, 1, 0.1)),
        ((1000, 10, 0.1), (100, 1, 0.1)),
        ((1000, 0, 0.1), (100, 0, 0.12)),
        ((1000, 0, 0.1), (100, 0, 0.05)),
        ((1000, 0, 0.001), (100, 0, 0.003)),
    ],
    ids=["nothing known", "one failure", "as bad as before", "a little slower", "faster", "slower by nothing"],
)
def test_a_candidate_that_is_no_worse_stays(
    baseline: tuple[int, int, float], candidate: tuple[int, int, float]
) -> None:
    assert verdict(EXPERIMENT, arms(baseline, candidate)) is None


def test_a_candidate_that_fails_is_rolled_back_after_a_few_requests() -> None:
    found = verdict(EXPERIMENT, arms((60, 0, 0.1), (6, 6, 0.1)))
    assert found == "version 4 failed 6 of 6 requests, version 3 0 of 60: rolled back"
    assert verdict(EXPERIMENT, arms((5000, 5, 0.1), (1000, 80, 0.1)))


def test_a_candidate_that_is_slow_is_rolled_back() -> None:
    found = verdict(EXPERIMENT, arms((1000, 0, 0.1), (100, 0, 0.2)))
    assert found
    assert found.startswith("version 4 takes 2")
    assert "version 3 " in found


@pytest.mark.parametrize(
    ("promised", "baseline", "candidate", "is_broken"),
    [
        ({"p95": 0.16}, 0.1, 0.115, True),
        ({"p95": 0.25}, 0.1, 0.115, False),
        ({"p95": 0.16}, 0.115, 0.115, False),
        ({}, 0.1, 0.115, False),
    ],
    ids=["broken", "kept", "broken by both alike", "nothing promised"],
)
def test_a_candidate_that_breaks_a_promise_of_latency_is_rolled_back(
    promised: dict[Any, float], baseline: float, candidate: float, is_broken: bool
) -> None:
    experiment = EXPERIMENT.model_copy(update={"objectives": Objectives(latency_seconds=promised)})
    found = verdict(experiment, arms((20_000, 0, baseline), (4_000, 0, candidate)))
    assert (found is not None) == is_broken
    if found:
        assert found.startswith("version 4 takes over 0.16 s for ")
        assert found.endswith("and serve.objectives.latency_seconds.p95 allows 5%: rolled back")


def test_failures_that_the_promised_availability_allows_are_no_reason() -> None:
    found = arms((5000, 5, 0.1), (1000, 80, 0.1))
    generous = EXPERIMENT.model_copy(update={"objectives": Objectives(availability=0.8)})
    assert verdict(EXPERIMENT, found)
    assert verdict(generous, found) is None


def test_all_failures_on_both_sides_are_no_difference() -> None:
    found = arms((50, 50, 0.1), (50, 50, 0.1))
    assert compare_times(found[BASELINE], found[CANDIDATE]) is None
    errors = compare_errors(found[BASELINE], found[CANDIDATE])
    assert errors
    assert errors.p_value == 1.0


def test_the_board_adds_up_and_stops_a_bad_candidate() -> None:
    ended: list[str] = []
    coordinator = Coordinator("tiny", EXPERIMENT.model_dump(mode="json"), ended.append)
    assert coordinator.report(arms((60, 0, 0.1), (1, 0, 0.1)))
    assert not coordinator.report(arms((60, 0, 0.1), (9, 9, 0.1)))
    assert not coordinator.report(new_arms())
    status = coordinator.status()
    until(lambda: ended == ["tiny"], "the end of the experiment", 10)
    assert (status.arms[CANDIDATE].requests, status.arms[CANDIDATE].errors) == (10, 9)
    assert status.verdict == "version 4 failed 9 of 10 requests, version 3 0 of 120: rolled back"


def test_an_experiment_that_is_not_guarded_goes_on() -> None:
    coordinator = Coordinator("tiny", EXPERIMENT.model_copy(update={"guarded": False}).model_dump(mode="json"), list)
    assert coordinator.report(arms((60, 0, 0.1), (60, 60, 0.1)))
