"""The metrics that each task reports of a validation, for specs: this file imports nothing heavy."""

from __future__ import annotations

from typing import Literal

Mode = Literal["min", "max"]
"""Whether less or more of a metric is better."""

_CLASSIFIER: dict[str, Mode] = {
    "loss": "min",
    "accuracy": "max",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "precision_weighted": "max",
    "recall_weighted": "max",
    "f1_weighted": "max",
    "roc_auc": "max",
    "calibration_error": "min",
}
REPORTED: dict[str, dict[str, Mode]] = {
    "tabular-classification": _CLASSIFIER,
    "image-classification": _CLASSIFIER,
    "text-classification": _CLASSIFIER,
    "image-generation": {"sliced_wasserstein": "min"},
    "causal-lm": {"loss": "min", "perplexity": "min", "token_accuracy": "max"},
}
"""Task -> its metrics."""
OWN = {
    "tabular-classification": "loss",
    "image-classification": "accuracy",
    "text-classification": "accuracy",
    "image-generation": "sliced_wasserstein",
    "causal-lm": "loss",
}
"""Task -> `Task.metric`, by which checkpoints and versions are compared."""
