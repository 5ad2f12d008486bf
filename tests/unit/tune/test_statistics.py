"""Whether the winner of a search is real."""

from __future__ import annotations

import math
import random

import pytest

from heliostat.tune.statistics import compare, repeats

SIX = {1: 0.91, 2: 0.93, 3: 0.90, 4: 0.94, 5: 0.92, 6: 0.915}
WORSE = {
    seed: value - gap for (seed, value), gap in zip(SIX.items(), (0.02, 0.03, 0.01, 0.02, 0.03, 0.02), strict=True)
}


def test_same_seeds_give_the_interval_of_scipys_paired_test() -> None:
    from scipy.stats import ttest_rel  # type: ignore[import-untyped]

    found = compare(SIX, WORSE, "max")
    expected = ttest_rel(list(SIX.values()), list(WORSE.values())).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.method, found.is_real, found.runs) == ("paired t", True, (6, 6))


def test_other_seeds_give_the_interval_of_scipys_welch_test() -> None:
    from scipy.stats import ttest_ind  # type: ignore[import-untyped]

    other = {10 + seed: value for seed, value in list(WORSE.items())[:4]}
    found = compare(SIX, other, "max", confidence=0.9)
    expected = ttest_ind(list(SIX.values()), list(other.values()), equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.method, found.runs) == ("Welch", (6, 4))


def test_a_gain_is_above_zero_in_either_mode() -> None:
    assert compare(SIX, WORSE, "max").mean > 0
    assert compare(WORSE, SIX, "min").mean == pytest.approx(compare(SIX, WORSE, "max").mean)
    assert compare(WORSE, SIX, "max").mean < 0


def test_what_is_the_same_but_for_noise_cannot_be_told_apart() -> None:
    draw = random.Random(3)
    real = 0
    for _ in range(200):
        one, other = ({seed: draw.gauss(0.9, 0.01) for seed in range(start, start + 5)} for start in (0, 10))
        real += compare(one, other, "max").is_real is True
    assert real <= 20  # 5 % are expected, and Welch's test gives at most about that


def test_one_run_has_no_interval_and_says_so() -> None:
    found = compare({1: 0.9}, {1: 0.8}, "max")
    assert (found.low, found.high, found.is_real, found.method) == (None, None, None, None)
    assert found.sentence("trial 3", "trial 5") == (
        "trial 3 is better than trial 5 by 0.1, without an interval: that needs two runs of each"
    )


def test_an_interval_with_zero_is_said_in_words() -> None:
    found = compare({1: 0.90, 2: 0.94}, {1: 0.91, 2: 0.92}, "max")
    assert found.is_real is False
    assert found.sentence("trial 3", "the default").endswith(
        "paired t over 2 seeds); it holds zero: the two cannot be told apart"
    )
    assert "holds zero" not in compare(SIX, WORSE, "max").sentence("a", "b")


def test_runs_without_a_finite_value_are_left_out_and_counted() -> None:
    found = repeats([0.5, math.nan, 0.7, math.inf])
    assert found.mean == pytest.approx(0.6)
    assert (found.runs, found.failed) == (2, 2)
    assert compare({1: 0.9, 2: math.nan, 3: 0.8}, {1: 0.7, 3: 0.7}, "max").runs == (2, 2)
    nothing = compare({1: math.nan}, SIX, "max")
    assert math.isnan(nothing.mean)
    assert "cannot be compared" in nothing.sentence("a", "b")
    assert repeats([]).deviation is None


def test_equal_runs_have_an_interval_without_width() -> None:
    same = dict.fromkeys((1, 2, 3), 0.9)
    assert compare(same, same, "max").is_real is False
    other = compare(same, dict.fromkeys((4, 5), 0.8), "max")
    assert [other.low, other.high] == pytest.approx([0.1, 0.1])
