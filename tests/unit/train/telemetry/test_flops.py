from typing import Any

import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from heliostat.train.telemetry.events import peak_memory_bytes
from heliostat.train.telemetry.flops import Flops, peak_flops

HIDDEN, LAYERS, HEADS, INNER, WORDS = 16, 2, 4, 24, 40


def llama(**options: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=INNER,
            **options,
        )
    )


def weights_of_layers() -> int:
    return LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER + 2 * HIDDEN) + HIDDEN


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_needs_six_flops_for_each_weight_and_token(tied: bool) -> None:
    flops = Flops.of(llama(tie_word_embeddings=tied))
    assert flops.body == 6 * weights_of_layers()
    assert flops.head == 6 * HIDDEN * WORDS
    assert flops.attention == 12 * LAYERS * HIDDEN


def test_weights_that_are_not_trained_need_four() -> None:
    model = llama()
    model.requires_grad_(False)
    assert Flops.of(model).body == 4 * weights_of_layers()


def test_the_width_of_attention_is_that_of_its_heads() -> None:
    assert Flops.of(llama(head_dim=8)).attention == 12 * LAYERS * HEADS * 8


def test_an_encoder_s_tables_cost_nothing() -> None:
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=32,
    )
    model = BertForSequenceClassification(config)
    tables = (WORDS + 32 + config.type_vocab_size) * HIDDEN
    assert Flops.of(model).body == 6 * (sum(one.numel() for one in model.parameters()) - tables)
    assert Flops.of(model).head == 0


def test_records_pay_for_their_own_pairs_of_tokens() -> None:
    assert Flops(body=1, head=10, attention=100).needed(np.array([2, 3]), 4) == 5 + 40 + 100 * (4 + 9)


def test_a_device_without_a_data_sheet_is_measured() -> None:
    assert peak_flops("cpu", "fp32") > 1e8


def test_memory_is_that_of_the_process() -> None:
    assert peak_memory_bytes("cpu") > 50 * 2**20
