"""Encodes texts as words, for networks built here; the vocabulary is learned from the training split.

Words are those that byte-pair encoding (Sennrich et al. 2016) finds: frequent ones whole, rare ones in pieces, and
characters that training has not seen in bytes, so that nothing is unknown in any script.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import regex
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn import functional

from heliostat.infra.registry.inputs import TextInputs
from heliostat.infra.registry.programs import Program
from heliostat.infra.texts import UNSPACED
from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.models.architectures.network import read_settings
from heliostat.train.models.bases import TOKENIZER, write_inputs

PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID, UNKNOWN_ID = 0, 1
MARKUP = r"<[a-zA-Z/][^<>]*>"
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
"""The tokens of single bytes, as the tokenizer library names them."""
LONGEST_UNSPACED = 4
"""Longest word of a script without blanks, in characters: else whole phrases would become words. Chinese words have one
to four characters."""
FEWEST = 2
"""How often two neighbours must occur to become one word or piece."""
VERSION = b"byte-pair encoded words, lower case, no markup, 3"
"""Increased when texts are split into words differently."""


@dataclass(frozen=True)
class WordEncoder(Encoder):
    """Encodes texts as ids of their lower-case words, without markup; rare words become several tokens."""

    tokenizer: Tokenizer | None = None
    """The trained tokenizer; None before `fit`."""
    length: int = 0
    """`data.max_length`; 0 before `fit`."""
    labelled: bool = True
    unknown_id: int | None = UNKNOWN_ID

    def columns(self, data: DataConfig) -> list[str]:
        """The column that a record must have."""
        return [data.columns.text]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        """The text, which identifies a record."""
        return record[data.columns.text]

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> WordEncoder:
        """Learns `data.vocabulary` words, pieces of words and characters, the most frequent ones."""
        tokenizer = Tokenizer(BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Replace(Regex(MARKUP), " "), normalizers.NFKC(), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = BpeTrainer(
            vocab_size=data.vocabulary,
            limit_alphabet=data.vocabulary // 2,
            min_frequency=FEWEST,
            special_tokens=[PAD, UNKNOWN],
            show_progress=False,
        )
        tokenizer.train_from_iterator((record[data.columns.text] for record in records), trainer)
        tokenizer.model = _with_bytes(json.loads(tokenizer.to_str())["model"])
        return replace(self, tokenizer=tokenizer, length=data.max_length)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer."""
        assert self.tokenizer
        self.tokenizer.save(str(folder / TOKENIZER))
        inputs = TextInputs(
            length=self.length, pad_id=PAD_ID, unknown_id=UNKNOWN_ID, vocabulary=self.tokenizer.get_vocab_size()
        )
        write_inputs(inputs, folder)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        """`input_ids` of each text, not truncated; the unknown token for a text without words."""
        assert self.tokenizer
        found = self.tokenizer.encode_batch_fast(list(records[data.columns.text]))
        return {"input_ids": [one.ids or [UNKNOWN_ID] for one in found]}

    def fingerprint(self) -> str:
        """Changes if words are learned differently; the vocabulary depends on the data only."""
        return hashlib.sha256(VERSION).hexdigest()


def _with_bytes(trained: Mapping[str, Any]) -> BPE:
    """The trained model with a token for each byte, and without words of unspaced scripts that are too long."""
    words = [word for word in trained["vocab"] if _is_word(word)]
    merges = [(first, second) for first, second in trained["merges"] if _is_word(first + second)]
    vocabulary = [*words[:2], *BYTES, *words[2:]]
    ids = {word: index for index, word in enumerate(vocabulary)}
    return BPE(ids, merges, unk_token=UNKNOWN, byte_fallback=True)


def _is_word(text: str) -> bool:
    return len(text) <= LONGEST_UNSPACED or not regex.search(UNSPACED, text)


class FixedLengthProgram(torch.nn.Module):
    """Calls a program that takes texts of one fixed length with texts of any length up to that."""

    def __init__(self, program: Program, length: int) -> None:
        super().__init__()
        self.program = program
        self.length = length

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Logits [texts, labels] of `input_ids` and `attention_mask` [texts, tokens]."""
        padded = {
            name: functional.pad(values[:, : self.length], (0, max(0, self.length - values.shape[1])))
            for name, values in inputs.items()
        }
        logits: torch.Tensor = self.program(**padded)
        return logits

    def weights(self) -> dict[str, torch.Tensor]:
        """The program's weights."""
        return self.program.weights()


def text_inputs(folder: Path) -> TextInputs:
    """The description of the inputs of the model in `folder`."""
    inputs = read_settings(folder).inputs
    assert isinstance(inputs, TextInputs)
    return inputs
