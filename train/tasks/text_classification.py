"""A class for each text: an encoder with a classification head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from heliostat.train import classification, models
from heliostat.train.batches import pad
from heliostat.train.config import DataConfig
from heliostat.train.rows import Rows
from heliostat.train.tasks.base import Batch, Example, shortened


@dataclass
class TextEncoder:
    """Texts to token ids, cut at the model's limit; labels stay words until training.

    It carries the Rust tokenizer itself, so that a worker needs neither the model's folder nor transformers.
    """

    tokenizer: Tokenizer
    digest: str
    max_length: int
    labelled: bool = True

    def columns(self, data: DataConfig) -> list[str]:
        """The columns that a record must have."""
        return [data.columns.text, data.columns.label]

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


class TextClassification:
    """Sentiment, topics, intents: one label for each text."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    metric = "accuracy"
    mode = "max"

    def encoder(self, data: DataConfig, folder: Path) -> TextEncoder:
        """Texts cut at `data.max_length` tokens."""
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

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`input_ids` and `attention_mask` [rows, tokens], `labels` [rows]."""
        ids = rows.lists("input_ids", indices)
        return {
            "input_ids": torch.from_numpy(pad(ids, 0)),
            "attention_mask": torch.from_numpy(pad([np.ones_like(row) for row in ids], 0)),
            "labels": torch.from_numpy(rows.classes[indices]),
        }

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the texts."""
        return functional.cross_entropy(self._logits(model, batch), batch["labels"], reduction="sum")

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """Logits: float32 [rows, labels]."""
        return self._logits(model, batch).cpu().numpy()

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """Those of any classifier: see `classification.metrics`."""
        return classification.metrics(outputs, rows.classes)

    def confusion(self, outputs: np.ndarray, rows: Rows) -> list[list[int]]:
        """Texts by [true class][predicted class]."""
        return classification.confusion(outputs, rows.classes)

    def reliability(self, outputs: np.ndarray, rows: Rows) -> list[classification.Bin]:
        """How often a prediction is right by its probability."""
        return classification.reliability(outputs, rows.classes)

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """The wrong predictions with the highest probability; their texts as they were read, cut."""
        return [
            {
                "text": shortened(rows.table["text"][record].as_py()),
                "true label": rows.labels[rows.classes[record]],
                "predicted label": rows.labels[predicted],
                "probability": probability,
            }
            for record, predicted, probability in classification.surest_errors(outputs, rows.classes, count)
        ]

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The first record's text and the probability of each label."""
        text = models.tokenizer(folder).decode(rows.lists("input_ids", np.array([0]))[0], skip_special_tokens=True)
        tokens = models.tokenizer(folder)(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            scores = model(**tokens).logits[0].float().softmax(dim=0)
        answer = dict(zip(rows.labels, scores.tolist(), strict=True))
        return {
            "input": {"text": text},
            "output": {"label": max(answer, key=answer.__getitem__), "scores": answer},
        }


TASK = TextClassification()
