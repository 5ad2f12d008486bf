"""Image classification: a network on pixels."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heliostat.infra.drift.statistics import ImageStatistics, Statistics
from heliostat.infra.images import data_url, png
from heliostat.train.data.config import DataConfig
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.images import ImageEncoder
from heliostat.train.tasks.base import Batch, Example
from heliostat.train.tasks.classifier import Classifier


class ImageClassification(Classifier):
    """Digits, things, defects: one label for each image."""

    name = "image-classification"

    def encoder(self, data: DataConfig, folder: Path | None) -> ImageEncoder:
        """An encoder that is fitted on the training split."""
        return ImageEncoder()

    def inputs(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`pixels` [images, height, width, channels]."""
        return {"pixels": torch.from_numpy(rows.matrix("pixels", indices))}

    def observed(
        self, rows: Rows, indices: np.ndarray, folder: Path, max_length: int
    ) -> tuple[Statistics, dict[str, np.ndarray]]:
        """Brightness and contrast."""
        found = ImageStatistics()
        return found, found.values([found.kept(rows.matrix("pixels", np.array([at]))[0]) for at in indices])

    def shown(self, rows: Rows, record: int) -> Example:
        """The image as a data URL."""
        return {"image": data_url(rows.matrix("pixels", np.array([record]))[0])}

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The first image and the probability of each label."""
        first = self.inputs(rows, np.array([0]))
        image = base64.b64encode(png(first["pixels"][0].numpy())).decode()
        return {"input": {"image": image}, "output": self.answer(model, rows, first)}


TASK = ImageClassification()
