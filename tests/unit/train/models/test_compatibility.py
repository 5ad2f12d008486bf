"""What does not fit between a base model and a spec is said before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from heliostat.infra.errors import ConfigError, ModelError
from heliostat.train.models.compatibility import check_labels, check_texts, positions
from heliostat.train.models.pretrained import load
from heliostat.train.tasks.text_classification import TASK

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip


def base(folder: Path, kind: str = "bert", tokens: int = 20, **values: Any) -> Path:
    """A base model's configuration, with a tokenizer of so many tokens."""
    settings = {"vocab_size": 20, "max_position_embeddings": 32, **values}
    AutoConfig.for_model(kind, **settings).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(tokens)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def test_a_tokenizer_must_not_have_more_tokens_than_the_embedding_has_rows(tmp_path: Path) -> None:
    check_texts(base(tmp_path / "as-many"), "causal-lm", 32)
    with pytest.raises(ConfigError, match=r"model\.source: its tokenizer has 28 tokens, .* embedding only 20;"):
        check_texts(base(tmp_path / "more", tokens=28), "causal-lm", 32)


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_records_must_not_be_longer_than_the_model_has_positions(kind: str, tmp_path: Path) -> None:
    folder = base(tmp_path, kind)
    check_texts(folder, "causal-lm", 32)
    with pytest.raises(ConfigError, match=r"data\.max_length: 64 given; model\.source has 32 positions, and 32 or"):
        check_texts(folder, "causal-lm", 64)


def test_positions_that_follow_the_padding_tokens_are_counted_from_there() -> None:
    assert positions(AutoConfig.for_model("roberta", max_position_embeddings=514, pad_token_id=1)) == 512
    assert positions(AutoConfig.for_model("bloom")) is None


def test_a_classifier_that_does_not_mask_its_padding_is_refused(tmp_path: Path) -> None:
    folder = base(tmp_path, "fnet")
    with pytest.raises(ConfigError, match=r"model\.source: a fnet answers a text otherwise when it is padded"):
        check_texts(folder, "text-classification", 32)


def test_a_decoder_without_a_padding_token_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = base(tmp_path, "gpt2")
    check_texts(folder, "text-classification", 32)
    assert "model.source: has no padding token" in caplog.text


def test_a_head_for_another_number_of_labels_is_named_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **SIZES)).save_pretrained(tmp_path)
    check_labels(tmp_path, "text-classification", 3)
    assert caplog.text == ""
    check_labels(tmp_path, "text-classification", 2)
    assert "model.source: its head has 3 labels, the data 2; a new head is trained" in caplog.text
    model = cast("BertForSequenceClassification", TASK.load_model(tmp_path, ("a", "b"), None))
    assert model.classifier.weight.shape == (2, 16)
    stored = BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored.bert.embeddings.word_embeddings.weight)


def test_other_weights_of_another_shape_are_an_error(tmp_path: Path) -> None:
    BertForSequenceClassification(BertConfig(vocab_size=20, **SIZES)).save_pretrained(tmp_path)
    BertConfig(vocab_size=24, **SIZES).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"word_embeddings\.weight has shape \[20, 16\], .* asks for \[24, 16\]"):
        load("AutoModelForSequenceClassification", tmp_path, None)
