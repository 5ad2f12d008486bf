"""Encodes plain texts as subwords, for language models trained from scratch; the tokenizer is trained too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.models.bases import END, TOKENIZER


@dataclass(frozen=True)
class SubwordEncoder(Encoder):
    """Byte-level byte-pair encoding (Sennrich et al. 2016), so that no character is unknown."""

    tokenizer: Tokenizer | None = None
    """The trained tokenizer; None before `fit`."""
    labelled: bool = False

    def columns(self, data: DataConfig) -> list[str]:
        """The column that a record must have."""
        return [data.columns.text]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """The text, which identifies a record."""
        return record[data.columns.text]

    def is_running_text(self, data: DataConfig) -> bool:
        """True: a language model learns all of a text."""
        return True

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> SubwordEncoder:
        """Trains a tokenizer with `data.vocabulary` tokens, 256 of which are the single bytes."""
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = BpeTrainer(
            vocab_size=data.vocabulary,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((record[data.columns.text] for record in records), trainer)
        return replace(self, tokenizer=tokenizer)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer."""
        assert self.tokenizer
        self.tokenizer.save(str(folder / TOKENIZER))

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        """`input_ids` of each text with an end token, and the same as `labels`."""
        assert self.tokenizer
        end = self.tokenizer.token_to_id(END)
        ids = [[*one.ids, end] for one in self.tokenizer.encode_batch_fast(list(records[data.columns.text]))]
        return {"input_ids": ids, "labels": ids}

    def fingerprint(self) -> str:
        """Changes if the tokenizer is trained differently; its vocabulary depends on the data only."""
        return hashlib.sha256(b"byte-level BPE").hexdigest()
