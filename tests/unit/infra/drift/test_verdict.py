"""The verdict from counts, and bins that give finite numbers whatever falls into them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

from heliostat.infra.drift.reference import (
    MOST_BINS,
    UNSEEN,
    Column,
    Reference,
    category_bins,
    number_bins,
    read_reference,
    write_reference,
)
from heliostat.infra.drift.verdict import LEAST_ROWS, Verdict, p_value, population_stability_index, verdicts

CLASSES = np.array([0.3, 0.25, 0.2, 0.15, 0.1])


def judged(column: Column, values: np.ndarray) -> Verdict:
    reference = Reference(columns=(column,))
    (found,) = verdicts(reference, reference.counted({column.name: values}))
    assert math.isfinite(found.psi)
    assert 0 <= found.p_value <= 1
    return found


def classes(count: int, shares: np.ndarray = CLASSES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), count, p=shares / shares.sum()).astype(float)


def test_the_index_is_that_of_the_formula() -> None:
    then, now = np.array([1000, 2000, 7000]), np.array([3000, 3000, 4000])
    expected = 0.2 * math.log(3) + 0.1 * math.log(1.5) - 0.3 * math.log(4 / 7)
    assert population_stability_index(then, now) == pytest.approx(expected, rel=2e-3)
    assert population_stability_index(then, then * 7) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_test_is_that_of_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    then, now = generator.integers(50, 100, 8), generator.integers(50, 300, 8)
    expected = chi2_contingency(np.stack([then, now]), correction=False).pvalue
    assert p_value(then, now) == pytest.approx(expected, rel=1e-9)


def test_rare_bins_are_one_bin_of_the_test() -> None:
    then, now = np.array([5000, 4000, 1, 2, 0, 1]), np.array([500, 400, 0, 0, 1, 0])
    expected = chi2_contingency([[5000, 4000, 4], [500, 400, 1]], correction=False).pvalue
    assert p_value(then, now) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [LEAST_ROWS, 100_000])
def test_a_class_that_vanishes_is_drift(rows: int) -> None:
    reference = category_bins("c", classes(5000))
    assert judged(reference, classes(rows, seed=1)).state == "stable"
    assert judged(reference, classes(rows, CLASSES[:4], seed=1)).state == "drifted"


@pytest.mark.parametrize(("value", "is_known"), [(UNSEEN, False), (np.nan, False), (7.0, False), (0.0, True)])
def test_a_class_that_training_has_not_seen_is_drift(value: float, is_known: bool) -> None:
    values = classes(2000, seed=1)
    values[:100] = value
    assert judged(category_bins("c", classes(5000)), values).state == ("stable" if is_known else "drifted")


def test_a_shift_of_a_number_is_drift_and_a_small_one_is_not() -> None:
    generator = np.random.default_rng(0)
    reference = number_bins("x", generator.normal(size=20_000))
    assert judged(reference, generator.normal(0.1, 1, 100_000)).state == "stable"  # significant, and of no effect
    assert judged(reference, generator.normal(0.7, 1, 1000)).state == "drifted"


def test_few_rows_give_no_verdict() -> None:
    reference = category_bins("c", classes(5000))
    few = judged(reference, np.zeros(LEAST_ROWS - 1))
    assert few == Verdict("c", 0.0, 1.0, "too_few")
    assert judged(category_bins("c", classes(20)), classes(5000)).state == "too_few"


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        (np.full(1000, 3.5), 3),
        (np.full(1000, -1e30), 3),
        (np.repeat([0.0, 1.0], 500), 2),
        (np.r_[np.zeros(900), np.arange(1, 101)], 2),
        (np.r_[np.full(950, 5.0), np.arange(-50, 0)], 2),
        (np.r_[np.full(500, 5.0), np.arange(-250, 250) + 0.5], 7),
        (np.random.default_rng(0).normal(size=1000), 10),
        (np.array([1.0]), 3),
        (np.full(10, np.nan), 2),
    ],
)
def test_each_number_has_a_bin(values: np.ndarray, bins: int) -> None:
    column = number_bins("x", values)
    assert len(column.edges) + 1 == bins
    assert sum(column.counts) == len(values)
    assert len(column.counts) <= MOST_BINS
    assert list(column.edges) == sorted(set(column.edges))
    judged(column, np.r_[values.repeat(LEAST_ROWS), np.nan, 1e38, -1e38])


def test_a_constant_that_becomes_another_one_is_drift() -> None:
    column = number_bins("x", np.full(1000, 3.5))
    assert judged(column, np.full(1000, 3.5)).state == "stable"
    assert judged(column, np.full(1000, 3.6)).state == "drifted"


def test_more_categories_than_bins_share_one() -> None:
    column = category_bins("c", np.arange(300.0).repeat(10))
    assert len(column.counts) == MOST_BINS
    assert sum(column.counts) == 3000


def quiet_columns(generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Rows of one distribution: numbers of several shapes, classes, rare and missing values."""
    holes = np.where(generator.random(rows) < 0.05, np.nan, generator.normal(size=rows))
    return {
        "normal": generator.normal(size=rows),
        "lognormal": generator.lognormal(size=rows),
        "integers": generator.poisson(3, rows).astype(float),
        "zeros": np.where(generator.random(rows) < 0.8, 0.0, generator.exponential(size=rows)),
        "constant": np.full(rows, 7.0),
        "holes": holes,
        "classes": generator.choice(5, rows, p=CLASSES).astype(float),
        "long tail": np.minimum(generator.zipf(1.5, rows), 1000).astype(float),
    }


def shifted(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same without the class of 10 %, which becomes another one."""
    return {**values, "classes": np.where(values["classes"] == 4, 0.0, values["classes"])}


@pytest.mark.parametrize(
    ("change", "expected"), [(lambda values: values, set()), (shifted, {"classes"})], ids=["the same", "a class less"]
)
@pytest.mark.parametrize("sample", [20_000, 60])
def test_a_day_of_a_million_rows(
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], expected: set[str], sample: int
) -> None:
    """24 hours, judged after each over all hours so far, against a large and a small sample of the training split."""
    generator = np.random.default_rng(23)
    of_training = quiet_columns(generator, sample)
    reference = Reference(
        columns=tuple(
            (category_bins if name in ("classes", "long tail") else number_bins)(name, values)
            for name, values in of_training.items()
        )
    )
    counts, drifted = np.zeros(reference.size, np.int64), []
    for _ in range(24):
        counts += reference.counted(change(quiet_columns(generator, 1_000_000 // 24 + 1)))
        drifted.append({one.column for one in verdicts(reference, counts) if one.state == "drifted"})
    assert drifted == [expected] * 24


def test_a_reference_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    assert read_reference(folder) is None
    reference = Reference(
        columns=(number_bins("x", np.arange(1000.0)), category_bins("c", classes(100))),
        left_out=3,
        common_tokens=(5, 7),
    )
    write_reference(folder, reference)
    assert read_reference(folder) == reference
