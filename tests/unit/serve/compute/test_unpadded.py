from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from heliostat.serve.compute.unpadded import MODEL_TYPES, Row, unpad

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()


def classifier(model_type: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=100, pad_token_id=1, initializer_range=0.5, **SIZES)
    return AutoModelForSequenceClassification.from_config(config).eval()


def encoder_widths(model: Any) -> list[torch.Size]:
    """What the first layer of the encoder was given, call by call."""
    seen: list[torch.Size] = []
    model.base_model.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    return seen


def test_a_row_gives_each_text_a_place_and_masks_what_is_free() -> None:
    row = Row.of(MASK, torch.float32)
    joined = row.join(torch.arange(1.0, 13).view(3, 4, 1))[0, :, 0]
    assert (row.places, row.firsts) == ([16, 16, 32], [0, 16, 32])
    assert [joined[first : first + 4].tolist() for first in row.firsts] == [[1, 2, 3, 1], [5, 1, 1, 1], [9, 10, 11, 12]]
    for mask, place, length in zip(row.masks, row.places, (3, 1, 4), strict=True):
        assert mask is not None
        assert mask.flatten().tolist() == [0.0] * length + [-torch.inf] * (place - length)


def test_a_row_of_full_places_has_no_masks() -> None:
    row = Row.of(torch.ones(2, 32).bool(), torch.bfloat16)
    assert (row.places, row.masks) == ([32, 32], [None, None])
    assert row.sources.tolist() == list(range(64))


@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES))
@torch.inference_mode()
def test_each_text_is_answered_as_if_it_were_alone(model_type: str) -> None:
    padded = classifier(model_type)
    model = copy.deepcopy(padded)
    assert unpad(model)
    seen = encoder_widths(model)
    ids = torch.randint(2, 100, (3, 4)) * MASK + ~MASK * 1
    found = model(input_ids=ids, attention_mask=MASK.long()).logits
    assert seen == [(1, 64, 32)]
    for text, mask, answer in zip(ids, MASK, found, strict=True):
        assert torch.allclose(answer, padded(input_ids=text[mask][None]).logits[0], atol=1e-5)


@torch.inference_mode()
def test_texts_of_one_length_need_no_mask() -> None:
    model = classifier("bert")
    ids = torch.randint(2, 100, (3, 4))
    expected = model(input_ids=ids).logits
    assert unpad(model)
    seen = encoder_widths(model)
    assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-5)
    assert seen == [(1, 64, 32)]


@torch.inference_mode()
def test_the_last_layer_computes_the_first_tokens_alone() -> None:
    model = classifier("bert")
    assert unpad(model)
    seen: list[torch.Size] = []
    last = model.base_model.encoder.layer[-1].layer
    last.intermediate.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(input_ids=torch.randint(2, 100, (3, 4)), attention_mask=MASK.long())
    assert seen == [(1, 3, 32)]


def test_a_model_that_mixes_tokens_elsewhere_stays_as_it_is() -> None:
    config = AutoConfig.for_model("distilbert", vocab_size=100, dim=32, hidden_dim=64, n_layers=1, n_heads=2)
    model = AutoModelForSequenceClassification.from_config(config)
    before = model.config._attn_implementation
    assert not unpad(model)
    assert not unpad(torch.nn.Linear(2, 2))
    assert model.config._attn_implementation == before
