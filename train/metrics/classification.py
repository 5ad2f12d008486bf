"""Metrics of a classifier, from its logits and the true classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

BINS = 15
"""Number of confidence bins, of equal width: as many as Guo et al. (2017) use in their tables."""


@dataclass(frozen=True)
class Bin:
    """The records whose confidence (the probability of the predicted class) is in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence of the records."""
    accuracy: float


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes: float64 [records, classes] from float32 logits of that shape."""
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()


def metrics(logits: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Loss, accuracy, and precision, recall and F1, both as mean over the classes and weighted by their records.

    As in scikit-learn, the mean is over the classes that occur as true or predicted class. `logits` is float32
    [records, classes], `classes` int64 [records]. `roc_auc` and `calibration_error` are left out if they are undefined:
    see `roc_auc` and `reliability`.
    """
    predicted = logits.argmax(axis=1)
    known: dict[str, float | None] = {
        "loss": float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(classes))),
        "accuracy": float((predicted == classes).mean()),
        **_averages(predicted, classes),
        "roc_auc": roc_auc(logits, classes),
        "calibration_error": calibration_error(reliability(logits, classes)),
    }
    return {name: value for name, value in known.items() if value is not None}


def _averages(predicted: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import precision_recall_fscore_support

    names = ("precision", "recall", "f1")
    found: dict[str, float] = {}
    for average, suffix in (("macro", ""), ("weighted", "_weighted")):
        *values, _ = precision_recall_fscore_support(classes, predicted, average=average, zero_division=0)
        found |= {f"{name}{suffix}": float(value) for name, value in zip(names, values, strict=True)}
    return found


def roc_auc(logits: np.ndarray, classes: np.ndarray) -> float | None:
    """Area under the ROC curve: of class 1 for two classes; else the mean of one class against the rest.

    None if a class has no record, for which it is undefined, or if a logit is not finite.
    """
    from sklearn.metrics import roc_auc_score

    count = logits.shape[1]
    if count < 2 or len(np.unique(classes)) < count or not np.isfinite(logits).all():
        return None
    scores = probabilities(logits)
    if count == 2:
        return float(roc_auc_score(classes, scores[:, 1]))
    return float(roc_auc_score(classes, scores, multi_class="ovr", average="macro", labels=range(count)))


def reliability(logits: np.ndarray, classes: np.ndarray) -> list[Bin]:
    """Accuracy by confidence, in BINS bins, including empty ones.

    Bin m of M holds the confidences in ((m - 1) / M, m / M]. Empty if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        return []
    confidence = probabilities(logits).max(axis=1)
    right = logits.argmax(axis=1) == classes
    edges = np.linspace(0, 1, BINS + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    counts, sums, rights = (
        np.bincount(place, weights, minlength=BINS) for weights in (None, confidence, right.astype(np.float64))
    )
    share = np.maximum(counts, 1)
    columns = (edges[:-1], edges[1:], counts, sums / share, rights / share)
    return [Bin(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def calibration_error(bins: list[Bin]) -> float | None:
    """The expected calibration error (Guo et al. 2017, equation 3): sum over bins of n_m / n |accuracy - confidence|.

    0 for a perfectly calibrated model; None without bins.
    """
    records = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / records if records else None


def confusion(logits: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """Records by [true class][predicted class]."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(classes, logits.argmax(axis=1), labels=range(logits.shape[1])).tolist()


def most_confident_errors(logits: np.ndarray, classes: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The wrong predictions with the highest confidence, highest first: record, predicted class, its probability."""
    scores, predicted = probabilities(logits), logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != classes)
    confidence = scores[wrong, predicted[wrong]]
    order = np.argsort(-confidence, kind="stable")[:count]
    return [(int(wrong[i]), int(predicted[wrong[i]]), float(confidence[i])) for i in order]
