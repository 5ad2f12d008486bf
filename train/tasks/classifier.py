"""Base class of the classification tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from heliostat.infra.drift.statistics import Statistics
from heliostat.train.data.rows import Rows
from heliostat.train.metrics import classification
from heliostat.train.models.architectures.network import load_network
from heliostat.train.tasks.base import Batch, Example

BESIDE = ("labels", "weights")
"""Entries of a batch that are not inputs of the model."""


class Classifier(ABC):
    """Loss, metrics and worst records of a classifier; its model is a network built here by default."""

    auto_class = ""
    metric = "accuracy"
    mode = "max"

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The network whose settings are in `folder`, or the published program if there is one."""
        return load_network(folder, len(labels))

    @abstractmethod
    def inputs(self, rows: Rows, indices: np.ndarray) -> Batch:
        """The model's inputs for the records `indices`."""

    @abstractmethod
    def shown(self, rows: Rows, record: int) -> Example:
        """A record of a test split for reports."""

    @abstractmethod
    def observed(
        self, rows: Rows, indices: np.ndarray, folder: Path, max_length: int
    ) -> tuple[Statistics, dict[str, np.ndarray]]:
        """What drift is watched by, and its values [len(indices)] for the records `indices`.

        The published model is in `folder`; it was trained on at most `max_length` tokens.
        """

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """The model's inputs, `labels` [rows] and, if classes are weighted, `weights` [rows]."""
        classes = rows.classes[indices]
        weights = {} if rows.weights is None else {"weights": torch.from_numpy(rows.weights[classes])}
        return {**self.inputs(rows, indices), "labels": torch.from_numpy(classes), **weights}

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the records, weighted by class."""
        losses = functional.cross_entropy(logits(model, batch), batch["labels"], reduction="none")
        return (losses * batch["weights"]).sum() if "weights" in batch else losses.sum()

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """Logits: float32 [rows, labels]."""
        return logits(model, batch).cpu().numpy()

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """Classification metrics: see `classification.metrics`."""
        return classification.metrics(outputs, rows.classes)

    def confusion(self, outputs: np.ndarray, rows: Rows) -> list[list[int]]:
        """Records by [true class][predicted class]."""
        return classification.confusion(outputs, rows.classes)

    def reliability(self, outputs: np.ndarray, rows: Rows) -> list[classification.Bin]:
        """Accuracy by confidence."""
        return classification.reliability(outputs, rows.classes)

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """The wrong predictions with the highest probability."""
        return [
            {
                **self.shown(rows, record),
                "true label": rows.labels[rows.classes[record]],
                "predicted label": rows.labels[predicted],
                "probability": probability,
            }
            for record, predicted, probability in classification.most_confident_errors(outputs, rows.classes, count)
        ]

    def answer(self, model: Any, rows: Rows, batch: Batch) -> dict[str, Any]:
        """The label of the first record of `batch` and the probability of each label, in the form of a probe."""
        with torch.inference_mode():
            scores = logits(model, batch)[0].softmax(dim=0).tolist()
        found = dict(zip(rows.labels, scores, strict=True))
        return {"label": max(found, key=found.__getitem__), "scores": found}


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits of the inputs in `batch`: float32 [rows, labels]."""
    found = model(**{name: tensor for name, tensor in batch.items() if name not in BESIDE})
    scores: torch.Tensor = getattr(found, "logits", found)
    return scores.float()
