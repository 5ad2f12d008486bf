"""Explanations of texts: the words that count get the attribution, whatever pieces they are read in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel, WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

from heliostat.infra.errors import DataError, ModelError
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import TextInputs
from heliostat.serve.explain.answers import TextExplanation
from heliostat.serve.explain.graphs import embedding_of
from heliostat.serve.explain.texts import EncoderEmbeddings, ProgramEmbeddings, TextExplainer
from heliostat.serve.explain.words import sum_by_word

WORDS = ("[PAD]", "[UNK]", "a", "joy", "dull", "film", "!")
INPUTS = TextInputs(length=6, pad_id=0, unknown_id=1, vocabulary=len(WORDS))
WORTH = {"joy": 2.0, "dull": -3.0}


class BagOfWords(torch.nn.Module):
    """The sum of what the words are worth, which is the first number of their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(len(WORDS), 3)
        self.embedding.weight.data[:, 0] = torch.tensor([WORTH.get(word, 0.0) for word in WORDS])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        worth = (self.embedding(input_ids)[:, :, 0] * attention_mask).sum(dim=1)
        return torch.stack([worth, -worth], dim=1)


class Recurrent(torch.nn.Module):
    """As the LSTM that Heliostat trains."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = torch.nn.Embedding(len(WORDS), 8)
        self.lstm = torch.nn.LSTM(8, 16, batch_first=True)
        self.last = torch.nn.Linear(16, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found, _ = self.lstm(self.embedding(input_ids) * 3)
        largest = found.masked_fill((attention_mask == 0)[:, :, None], -1.0).amax(dim=1)
        logits: torch.Tensor = self.last(largest) * 5
        return logits


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(INPUTS.length)
    return made


def explainer(model: torch.nn.Module, folder: Path) -> TextExplainer:
    programs.save(model, INPUTS.padded([[1], [2, 3]]), folder)
    words = ProgramEmbeddings(programs.load(folder), INPUTS, "tiny")
    return TextExplainer(words, tokenizer(), ("good", "bad"))


def explain(model: torch.nn.Module, folder: Path, text: str, label: str | None = None) -> TextExplanation:
    found = explainer(model, folder).explain(text, label)
    assert isinstance(found, TextExplanation)
    return found


def test_the_words_that_count_get_what_they_are_worth(tmp_path: Path) -> None:
    text = "a joy,  dull film!"
    found = explain(BagOfWords(), tmp_path, text, "good")
    assert {one.word: one.attribution for one in found.words} == pytest.approx(
        {"a": 0.0, "joy": 2.0, ",": 0.0, "dull": -3.0, "film": 0.0, "!": 0.0}, abs=1e-4
    )
    assert all(text[one.start : one.end] == one.word for one in found.words)
    assert found.predicted == "bad"
    assert not found.truncated


def test_for_the_other_label_the_signs_turn(tmp_path: Path) -> None:
    found = explain(BagOfWords(), tmp_path, "dull")
    assert found.label == "bad"
    assert found.words[0].attribution == pytest.approx(3.0, abs=1e-4)


def test_what_is_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    found = explain(BagOfWords(), tmp_path, "a a a a a a joy")
    assert found.truncated
    assert [one.word for one in found.words] == ["a"] * 6


def test_an_lstm_is_explained_completely(tmp_path: Path) -> None:
    found = explain(Recurrent(), tmp_path, "a dull film, no joy")
    assert found.convergence
    assert found.convergence.converged
    assert abs(found.convergence.difference) > 0.1
    total = sum(one.attribution for one in found.words)
    assert total == pytest.approx(found.convergence.difference + found.convergence.delta, abs=1e-4)
    unknown = next(one for one in found.words if one.word == "no")
    assert unknown.attribution == pytest.approx(0.0, abs=1e-6)


def test_a_text_without_a_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing in the text"):
        explain(BagOfWords(), tmp_path, "  ")


def test_a_program_without_one_embedding_of_its_words_cannot_be_explained(tmp_path: Path) -> None:
    class Counts(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return torch.stack([input_ids.sum(1), attention_mask.sum(1)], dim=1).float()

    programs.save(Counts(), INPUTS.padded([[1], [2, 3]]), tmp_path)
    with pytest.raises(ModelError, match=r"^tiny: the program has 0 embeddings"):
        embedding_of(programs.load(tmp_path), "tiny")


def test_an_encoder_is_explained_by_its_words_and_not_by_the_tokens_around_them() -> None:
    torch.manual_seed(0)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "won", "##der", "##ful", "film", "a"]
    made = Tokenizer(WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = BertForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    found = TextExplainer(EncoderEmbeddings(model, 0), made, ("good", "bad")).explain("a wonderful film", "bad")
    assert isinstance(found, TextExplanation)
    assert [(one.word, one.start, one.end) for one in found.words] == [
        ("a", 0, 1),
        ("wonderful", 2, 11),
        ("film", 12, 16),
    ]
    assert found.convergence
    total = sum(one.attribution for one in found.words)
    assert total == pytest.approx(found.convergence.difference + found.convergence.delta, abs=1e-5)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(0, 2), (2, 5), (8, 9)], [("don't", 3.0), ("!", 4.0)]),
        ([(0, 3), (3, 5), (5, 7)], [("don't", 3.0), ("go", 4.0)]),
        ([(0, 5), (0, 0), (9, 9)], [("don't", 1.0)]),
        ([(0, 6), (6, 9), (8, 9)], [("don't", 1.0), ("go", 2.0), ("!", 4.0)]),
    ],
)
def test_pieces_are_summed_into_words(pieces: list[tuple[int, int]], expected: list[tuple[str, float]]) -> None:
    found = sum_by_word("don't go!", pieces, [1.0, 2.0, 4.0])
    assert [(one.word, one.attribution) for one in found] == expected


@pytest.mark.parametrize(
    "text", ["हिन्दी फिल्म अच्छी है", "שָׁלוֹם עולם", "ภาษาไทย ดีมาก", "cafe\u0301 bon", "می\u200cخواهم فیلم"]
)
def test_marks_are_parts_of_their_words(text: str) -> None:
    ends = [at for at, char in enumerate(text + " ") if char == " "]
    pieces = list(zip([0, *(end + 1 for end in ends)], ends, strict=False))
    assert [one.word for one in sum_by_word(text, pieces, [1.0] * len(pieces))] == text.split()


def test_an_empty_text_has_no_words() -> None:
    assert sum_by_word("", [(0, 0)], [1.0]) == []


def test_a_text_without_blanks_is_explained_by_the_tokens_that_the_model_reads() -> None:
    text = "屏幕让人失望, film 漢字"
    pieces = [(0, 2), (2, 6), (6, 7), (8, 12), (13, 14), (13, 14), (14, 15)]
    found = sum_by_word(text, pieces, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    words = {"屏幕": 1.0, "让人失望": 2.0, ",": 4.0, "film": 8.0, "漢": 48.0, "字": 64.0}
    assert {one.word: one.attribution for one in found} == words
