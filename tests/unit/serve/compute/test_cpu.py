from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from heliostat.serve.compute.cpu import PackedLinear, pack


@pytest.fixture(scope="module")
def encoder() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=100, initializer_range=0.2, **sizes)).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_a_packed_layer_computes_the_same(bias: bool, gelu: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 64, bias=bias)
    x = torch.randn(3, 5, 96)
    expected = nn.functional.gelu(linear(x)) if gelu else linear(x)
    with torch.inference_mode():
        found = PackedLinear(linear.bfloat16(), gelu=gelu)(x.bfloat16())
    assert found.shape == (3, 5, 64)
    assert torch.allclose(found.float(), expected, atol=0.03)


def test_a_packed_model_answers_as_before(encoder: BertForSequenceClassification) -> None:
    ids = torch.randint(0, 100, (3, 17))
    packed = pack(copy.deepcopy(encoder).bfloat16())
    kinds = [type(module) for module in packed.modules()]
    assert kinds.count(PackedLinear) == 2 * 6 + 1  # each layer and the pooler; the head is too small
    with torch.inference_mode():
        expected = encoder(input_ids=ids).logits.softmax(-1)
        found = packed(input_ids=ids).logits.float().softmax(-1)
    assert torch.allclose(found, expected, atol=0.02)


def test_float32_stays_as_it_is(encoder: BertForSequenceClassification) -> None:
    model = copy.deepcopy(encoder)
    assert pack(model) is model
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
