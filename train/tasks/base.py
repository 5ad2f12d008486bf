"""What a task is: everything about a kind of problem that the loop must not know."""

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
"""A record and what the model made of it, by column name, for people to read."""

LONGEST_TEXT = 800
"""Characters of a text in an Example."""


class Task(Protocol):
    """One kind of problem, in one file of this folder."""

    name: str
    auto_class: str
    """The class of transformers that loads its models."""
    metric: str
    """The validation metric that checkpoints, trials and versions are compared by."""
    mode: str
    """`max` or `min`: which way `metric` is better."""

    def encoder(self, data: DataConfig, folder: Path | None) -> Encoder:
        """What turns records into numbers, with the tokenizer in the base model's folder; None where one is built."""
        ...

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The model in `folder` in float32, with a head for `labels` where the task needs one.

        Raises ModelError where the folder holds no model for this task.
        """
        ...

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """Tensors of the records `indices`, padded to the longest: int64 [len(indices), tokens]."""
        ...

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss summed over the targets of the batch (float32 scalar)."""
        ...

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """What evaluation keeps of each record: float32 [rows, numbers]."""
        ...

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """Metrics of a whole split from the outputs of all its records, in their order."""
        ...

    def confusion(self, outputs: np.ndarray, rows: Rows) -> list[list[int]] | None:
        """Records by [true class][predicted class]; None for tasks without classes."""
        ...

    def reliability(self, outputs: np.ndarray, rows: Rows) -> list[Bin] | None:
        """How often the model is right by how sure it is; None for tasks without classes."""
        ...

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """The records of a test split that the model does worst on, worst first, `count` at most.

        The tokenizer is in the model folder. Texts are cut.
        """
        ...

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """One input and what `model` answers, in the form that serving checks at start."""
        ...


def shortened(text: str, keep_end: bool = False) -> str:
    """`text` cut to LONGEST_TEXT characters, which shows as an ellipsis; its start stays, or its end."""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"… {text[-LONGEST_TEXT:]}" if keep_end else f"{text[:LONGEST_TEXT]} …"
