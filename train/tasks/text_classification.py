"""A class for each text: an encoder with a classification head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from heliostat.train import models
from heliostat.train.batches import pad
from heliostat.train.config import DataConfig
from heliostat.train.data import Encoder
from heliostat.train.rows import Rows
from heliostat.train.tasks.base import Batch, Example, shortened
from heliostat.train.tasks.classifier import Classifier


@dataclass
class TextEncoder(Encoder):
    """Texts to token ids, cut at the model's limit; labels stay words until training.

    It carries the Rust tokenizer itself, so that a worker needs neither the model's folder nor transformers.
    """

    tokenizer: Tokenizer
    digest: str
    max_length: int
    labelled: bool = True

    def columns(self, data: DataConfig) -> list[str]:
        """The columns that a record must have."""
        return [data.columns.text]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """What makes two records the same."""
        return record[data.columns.text]

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        """Token ids of each text, cut before its closing token, and how many there were."""
        whole = [encoding.ids for encoding in self.tokenizer.encode_batch(list(records[data.columns.text]))]
        cut = [ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]] for ids in whole]
        return {"input_ids": cut, "full_length": [len(ids) for ids in whole]}

    def fingerprint(self) -> str:
        """Changes when the same text would become other tokens."""
        return self.digest


class TextClassification(Classifier):
    """Sentiment, topics, intents: one label for each text."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"

    def encoder(self, data: DataConfig, folder: Path | None) -> TextEncoder:
        """Texts cut at `data.max_length` tokens."""
        assert folder
        tokenizer = Tokenizer.from_str(models.tokenizer(folder).backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return TextEncoder(tokenizer, models.tokenizer_fingerprint(folder), data.max_length)

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The encoder in `folder` with a head of `len(labels)` outputs."""
        names = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
        return models.load(self.auto_class, folder, dropout, num_labels=len(labels), **names)

    def inputs(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`input_ids` and `attention_mask` [rows, tokens], padded to the longest."""
        ids = rows.lists("input_ids", indices)
        return {
            "input_ids": torch.from_numpy(pad(ids, 0)),
            "attention_mask": torch.from_numpy(pad([np.ones_like(row) for row in ids], 0)),
        }

    def shown(self, rows: Rows, record: int) -> Example:
        """The text as it was read, cut."""
        return {"text": shortened(rows.table["text"][record].as_py())}

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The first record's text and the probability of each label."""
        text = models.tokenizer(folder).decode(rows.lists("input_ids", np.array([0]))[0], skip_special_tokens=True)
        tokens = models.tokenizer(folder)(text, truncation=True, max_length=max_length, return_tensors="pt")
        return {"input": {"text": text}, "output": self.answer(model, rows, dict(tokens))}


TASK = TextClassification()
