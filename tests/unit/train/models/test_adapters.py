from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.train.config import TrainConfig
from heliostat.train.engine import gathered_weights
from heliostat.train.models.adapters import attach, plain_name
from heliostat.train.models.config import AdapterConfig

SIZES = {
    "vocab_size": 40,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
}
IDS = torch.arange(10)[None]


def decoder() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def classifier() -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_labels=3, **SIZES)).eval()


def trained(model: Any, **values: Any) -> Any:
    attach(model, AdapterConfig(**values))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("make", [decoder, classifier])
@pytest.mark.parametrize(("quantize", "gap"), [(None, 1e-6), ("nf4", 4e-3)])
def test_the_published_model_is_a_plain_one_that_answers_the_same(
    make: Any, quantize: Any, gap: float, tmp_path: Path
) -> None:
    before = make()(input_ids=IDS).logits
    model = trained(make(), quantize=quantize)
    answer = model(input_ids=IDS).logits
    assert (answer - before).abs().max() > 10 * gap
    weights = dict(gathered_weights(SimpleNamespace(module=model)))
    assert weights.keys() == make().state_dict().keys()
    model.save_pretrained(tmp_path, state_dict=weights)
    plain = type(model).from_pretrained(tmp_path, dtype="float32").eval()
    assert torch.allclose(plain(input_ids=IDS).logits, answer, atol=gap)


@pytest.mark.parametrize("make", [decoder, classifier])
def test_adapters_change_nothing_before_they_are_trained(make: Any) -> None:
    model = make()
    before = model(input_ids=IDS).logits
    attach(model, AdapterConfig())
    assert torch.equal(model(input_ids=IDS).logits, before)


def test_only_adapters_and_a_new_head_are_trained() -> None:
    def names(model: Any) -> list[str]:
        return [name for name, parameter in trained(model).named_parameters() if parameter.requires_grad]

    assert all(".lora_" in name for name in names(decoder()))
    assert [name for name in names(classifier()) if ".lora_" not in name] == ["classifier.weight", "classifier.bias"]


def test_targets_are_the_last_parts_of_names() -> None:
    names = [name for name, _ in trained(decoder(), targets=["q_proj"], rank=2).named_parameters() if ".lora_" in name]
    assert len(names) == 4
    assert all(".q_proj." in name for name in names)


def test_a_target_that_the_model_lacks_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.adapter\.targets: \['query'\] given; 'all-linear' or names of down_"
    ):
        attach(decoder(), AdapterConfig(targets=["query"]))


def test_names_of_the_plain_model() -> None:
    assert plain_name("a.q_proj.base_layer.weight") == "a.q_proj.weight"
    assert plain_name("a.norm.weight") == "a.norm.weight"
    assert plain_name("a.q_proj.lora_A.default.weight") is None
    assert plain_name("a.q_proj.base_layer.weight.absmax") is None
    assert plain_name("a.q_proj.base_layer.weight.quant_state.bitsandbytes__nf4") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank"),
        ({"adapter": {"targets": []}}, "adapter.targets"),
        ({"adapter": {"quantize": "int3"}}, "adapter.quantize"),
        ({"adapter": {"quantize": "nf4"}, "zero_stage": 3}, "zero_stage 0, 1 and 2 are allowed"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, values)
