"""Tabular classification: a network on standardised numbers and one-hot words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from heliostat.infra.drift.statistics import Statistics, TableStatistics
from heliostat.train.data.config import DataConfig
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.tables import TableEncoder
from heliostat.train.models.architectures.network import read_settings
from heliostat.train.tasks.base import Batch, Example, shortened
from heliostat.train.tasks.classifier import Classifier


class TabularClassification(Classifier):
    """Diagnoses, churn, fraud: one label for each row."""

    name = "tabular-classification"
    metric = "loss"  # on few validation records, accuracy is the same at many steps
    mode = "min"

    def encoder(self, data: DataConfig, folder: Path | None) -> TableEncoder:
        """An encoder that is fitted on the training split."""
        return TableEncoder()

    def inputs(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`features` [rows, width]."""
        return {"features": torch.from_numpy(rows.matrix("features", indices))}

    def observed(
        self, rows: Rows, indices: np.ndarray, folder: Path, max_length: int
    ) -> tuple[Statistics, dict[str, np.ndarray]]:
        """The columns themselves."""
        inputs: Any = read_settings(folder).inputs
        found = TableStatistics(inputs)
        return found, found.with_missing(found.values(rows.matrix("features", indices)))

    def shown(self, rows: Rows, record: int) -> Example:
        """The row as JSON, shortened."""
        return {"row": shortened(rows.table["text"][record].as_py())}

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The first row and the probability of each label."""
        inputs: Any = read_settings(folder).inputs
        first = self.inputs(rows, np.array([0]))
        row = inputs.row(first["features"][0].double().tolist())
        features = torch.tensor([inputs.features(row)])
        return {"input": {"row": row}, "output": self.answer(model, rows, {"features": features})}


TASK = TabularClassification()
