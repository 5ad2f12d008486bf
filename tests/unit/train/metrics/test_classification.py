"""What evaluation says of classifiers, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from heliostat.train.metrics import classification

SURE = math.log(0.9 / 0.1)
"""The logit, against one of 0, of a probability of 0.9."""
LESS_SURE = math.log(0.6 / 0.4)


def table(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


BINARY = table([SURE, 0], [SURE, 0], [0, LESS_SURE], [0, SURE])
"""Predicted: 0 with 0.9, 0 with 0.9, 1 with 0.6, 1 with 0.9."""
CLASSES = np.array([0, 1, 0, 1])
"""The second and the third are wrong."""


def test_averages_are_over_the_classes_and_over_the_records() -> None:
    logits = table([5, 0, 0], [5, 0, 0], [5, 0, 0], [0, 5, 0], [0, 5, 0], [0, 5, 0])
    metrics = classification.metrics(logits, np.array([0, 0, 0, 0, 1, 2]))
    # class 0: precision 1, recall 3/4, F1 6/7; class 1: 1/3, 1, 1/2; class 2: 0, 0, 0
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["precision"] == pytest.approx((1 + 1 / 3) / 3)
    assert metrics["recall"] == pytest.approx((3 / 4 + 1) / 3)
    assert metrics["f1"] == pytest.approx((6 / 7 + 1 / 2) / 3)
    assert metrics["precision_weighted"] == pytest.approx((4 * 1 + 1 / 3) / 6)
    assert metrics["recall_weighted"] == pytest.approx(4 / 6)
    assert metrics["f1_weighted"] == pytest.approx((4 * 6 / 7 + 1 / 2) / 6)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    # scores of class 1: 0.1 and 0.6 where it is not, 0.1 and 0.9 where it is: 1 tie, 2 right, 1 wrong of 4 pairs
    assert classification.roc_auc(BINARY, CLASSES) == pytest.approx(2.5 / 4)
    assert classification.roc_auc(BINARY[:, ::-1].copy(), CLASSES) == pytest.approx(1.5 / 4)


def test_the_area_of_several_classes_is_the_mean_of_each_against_the_rest() -> None:
    logits = table([2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0])
    # against the rest, class 0 wins 2 of 3 pairs and ties 1, class 1 wins all 3, class 2 wins 2 of 4 and ties 2
    assert classification.roc_auc(logits, np.array([0, 1, 2, 2])) == pytest.approx((2.5 / 3 + 1 + 3 / 4) / 3)


@pytest.mark.parametrize("logits", [BINARY[:2], table([SURE, 0, 0], [0, SURE, 0])])
def test_the_area_is_left_out_where_a_class_has_no_record(logits: np.ndarray) -> None:
    metrics = classification.metrics(logits, np.array([0, 0]))
    assert "roc_auc" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_split_of_one_class_that_is_all_right() -> None:
    metrics = classification.metrics(BINARY[:2], np.array([0, 0]))
    assert metrics["accuracy"] == metrics["recall_weighted"] == metrics["f1_weighted"] == 1
    assert metrics["f1"] == metrics["precision"] == metrics["recall"] == 1, "of the other class nothing is known"
    assert metrics["calibration_error"] == pytest.approx(0.1)


def test_logits_that_are_no_numbers_are_no_error() -> None:
    metrics = classification.metrics(table([math.nan, 0], [0, 1]), np.array([0, 1]))
    assert math.isnan(metrics["loss"])
    assert metrics["accuracy"] == 1
    assert not metrics.keys() & {"roc_auc", "calibration_error"}


def test_calibration_is_how_far_sureness_is_from_being_right() -> None:
    bins = classification.reliability(BINARY, CLASSES)
    assert len(bins) == classification.BINS
    held = {round(one.confidence, 3): one for one in bins if one.count}
    assert held.keys() == {0.9, 0.6}
    assert held[0.9].count == 3
    assert held[0.9].accuracy == pytest.approx(2 / 3)
    assert (held[0.6].count, held[0.6].accuracy) == (1, 0)
    assert all(one.low < one.confidence <= one.high for one in held.values())
    assert classification.calibration_error(bins) == pytest.approx(3 / 4 * (0.9 - 2 / 3) + 1 / 4 * 0.6)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    bins = classification.reliability(table([1000, 0], [0, 1000]), np.array([0, 1]))
    assert [one.count for one in bins] == [0] * (classification.BINS - 1) + [2]
    assert classification.calibration_error(bins) == 0
    assert classification.calibration_error([]) is None


def test_errors_are_the_surest_first() -> None:
    errors = classification.most_confident_errors(BINARY, CLASSES, 5)
    assert [(record, predicted) for record, predicted, _ in errors] == [(1, 0), (2, 1)]
    assert [probability for *_, probability in errors] == pytest.approx([0.9, 0.6])
    assert classification.most_confident_errors(BINARY, CLASSES, 1) == errors[:1]
    assert classification.most_confident_errors(BINARY, np.array([0, 0, 1, 1]), 5) == []
