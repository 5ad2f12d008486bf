"""The interface of tasks: everything that is specific to a kind of problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.rows import Rows
from heliostat.train.metrics.classification import Bin

Batch = dict[str, torch.Tensor]
Example = dict[str, str | int | float]
"""A record and the model's output for it, by column name, for reports."""

LONGEST_TEXT = 800
"""Longest text in an Example, in characters."""


class Task(Protocol):
    """One kind of problem; each is one file in this folder."""

    name: str
    auto_class: str
    """The transformers class that loads its models."""
    metric: str
    """The validation metric by which checkpoints, trials and versions are compared."""
    mode: str
    """Whether a higher (`max`) or lower (`min`) `metric` is better."""

    def encoder(self, data: DataConfig, folder: Path | None) -> Encoder:
        """The encoder, with the tokenizer in the base model's `folder`; None for a model that is built here."""
        ...

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The model in `folder` in float32, with a head for `labels` if the task needs one.

        Raises ModelError if the folder holds no model for this task.
        """
        ...

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """Tensors of the records `indices`, padded to the longest: int64 [len(indices), tokens]."""
        ...

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss summed over the targets of the batch (float32 scalar)."""
        ...

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """The outputs of each record that evaluation needs: float32 [rows, numbers]."""
        ...

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """Metrics of a split from the outputs of all its records, in order."""
        ...

    def confusion(self, outputs: np.ndarray, rows: Rows) -> list[list[int]] | None:
        """Records by [true class][predicted class]; None for tasks without classes."""
        ...

    def reliability(self, outputs: np.ndarray, rows: Rows) -> list[Bin] | None:
        """Accuracy by confidence; None for tasks without classes."""
        ...

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """The records of a test split with the worst predictions, worst first, at most `count`.

        The tokenizer is in the model folder. Texts are shortened.
        """
        ...

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """An input and the output of `model`, in the form that serving checks at startup."""
        ...


def shortened(text: str, keep_end: bool = False) -> str:
    """`text` cut to LONGEST_TEXT characters, marked by an ellipsis; keeps its start, or its end with `keep_end`."""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"… {text[-LONGEST_TEXT:]}" if keep_end else f"{text[:LONGEST_TEXT]} …"
