"""Text classification: an encoder, or a decoder, with a classification head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from heliostat.infra.drift.statistics import Statistics, TextStatistics, common_tokens
from heliostat.infra.errors import ModelError
from heliostat.infra.last_token import read_last_token
from heliostat.infra.registry.programs import Program
from heliostat.infra.texts import unknown_id
from heliostat.train.data.batches import pad
from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.words import FixedLengthProgram, WordEncoder, text_inputs
from heliostat.train.models import pretrained
from heliostat.train.models.architectures.network import is_built
from heliostat.train.models.bases import TOKENIZER
from heliostat.train.tasks.base import Batch, Example, shortened
from heliostat.train.tasks.classifier import Classifier


@dataclass
class TextEncoder(Encoder):
    """Encodes texts as token ids, truncated to the model's limit; labels stay text until training.

    It holds the Rust tokenizer itself, so that workers need neither the model's folder nor transformers.
    """

    tokenizer: Tokenizer
    digest: str
    max_length: int
    unknown_id: int | None = None
    labelled: bool = True

    def columns(self, data: DataConfig) -> list[str]:
        """The columns that a record must have."""
        return [data.columns.text]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """The text, which identifies a record."""
        return record[data.columns.text]

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        """Token ids of each text, truncated before the closing token, and the number of tokens before truncation."""
        whole = [encoding.ids for encoding in self.tokenizer.encode_batch(list(records[data.columns.text]))]
        cut = [ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]] for ids in whole]
        return {"input_ids": cut, "full_length": [len(ids) for ids in whole]}

    def fingerprint(self) -> str:
        """Changes if the same text would be tokenised differently."""
        return self.digest


class TextClassification(Classifier):
    """Sentiment, topics, intents: one label for each text."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"

    def encoder(self, data: DataConfig, folder: Path | None) -> TextEncoder | WordEncoder:
        """The base model's tokenizer, or words for a network built here; truncated to `data.max_length` tokens."""
        if folder is None:
            return WordEncoder()
        whole = pretrained.tokenizer(folder)
        tokenizer = Tokenizer.from_str(whole.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return TextEncoder(tokenizer, pretrained.tokenizer_fingerprint(folder), data.max_length, unknown_id(whole))

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The base model in `folder` with a head of `len(labels)` outputs, or the network built in its place."""
        if is_built(folder):
            model = super().load_model(folder, labels, dropout)
            return FixedLengthProgram(model, text_inputs(folder).length) if isinstance(model, Program) else model
        names = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
        }
        model = pretrained.load(self.auto_class, folder, dropout, num_labels=len(labels), **names)
        read_last_token(model)
        return model

    def inputs(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`input_ids` and `attention_mask` [rows, tokens], padded to the longest."""
        ids = rows.lists("input_ids", indices)
        return {
            "input_ids": torch.from_numpy(pad(ids, 0)),
            "attention_mask": torch.from_numpy(pad([np.ones_like(row) for row in ids], 0)),
        }

    def observed(
        self, rows: Rows, indices: np.ndarray, folder: Path, max_length: int
    ) -> tuple[Statistics, dict[str, np.ndarray]]:
        """Length, and shares of unknown and of common tokens, cut as serving cuts texts."""
        built = text_inputs(folder) if is_built(folder) else None
        unknown = built.unknown_id if built else unknown_id(pretrained.tokenizer(folder))
        texts = [ids[: built.length if built else max_length] for ids in rows.lists("input_ids", indices)]
        found = TextStatistics(unknown, common_tokens(texts))
        return found, found.values([found.kept(ids.tolist()) for ids in texts])

    def shown(self, rows: Rows, record: int) -> Example:
        """The original text, shortened."""
        return {"text": shortened(rows.table["text"][record].as_py())}

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The first text with a known word, and the probability of each label."""
        if is_built(folder):
            words = Tokenizer.from_file(str(folder / TOKENIZER))
            text = _first_text(rows, words.decode)
            tokens = text_inputs(folder).padded([words.encode(text).ids])
        else:
            text = _first_text(rows, partial(pretrained.tokenizer(folder).decode, skip_special_tokens=True))
            tokens = dict(
                pretrained.tokenizer(folder)(text, truncation=True, max_length=max_length, return_tensors="pt")
            )
        return {"input": {"text": text}, "output": self.answer(model, rows, tokens)}


def _first_text(rows: Rows, decode: Callable[[list[int]], str]) -> str:
    """The first record that is not blank after decoding; raises ModelError if all are."""
    texts = (decode(rows.lists("input_ids", np.array([record]))[0].tolist()) for record in range(len(rows)))
    found = next((text for text in texts if text.strip()), None)
    if found is None:
        raise ModelError("no validation record has a word that the model knows; nothing is published")
    return found


TASK = TextClassification()
