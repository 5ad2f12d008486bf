from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, LlamaConfig, LlamaForCausalLM

from heliostat.infra.accelerators import Accelerator
from heliostat.infra.config.strict import build
from heliostat.infra.errors import ModelError
from heliostat.infra.memory import GIB
from heliostat.train.config import TrainConfig
from heliostat.train.parallel.sharding import buckets
from heliostat.train.planning.footprint import TOKENS, Footprint, footprint
from heliostat.train.planning.plan import RESERVED_BYTES, USABLE, estimate, largest_micro_batch, needs
from heliostat.train.telemetry.flops import Flops

BILLION = 10**9
LARGE = Footprint(7 * BILLION, 7 * BILLION, 6 * BILLION, 1e6, 1e5, 32_000, Flops(6 * 7e9, 0, 0))
SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def spec(**values: Any) -> TrainConfig:
    return build(TrainConfig, {"workers": 8, "precision": "bf16", **values})


def states(stage: int, workers: int = 8, **values: Any) -> float:
    need = needs(LARGE, spec(**values), stage, workers, 0)
    return need.parameters + need.gradients + need.optimizer


@pytest.mark.parametrize(("stage", "bytes_a_parameter"), [(0, 16), (1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 16 / 8)])
def test_model_states_are_those_of_the_zero_paper(stage: int, bytes_a_parameter: float) -> None:
    assert states(stage) == pytest.approx(bytes_a_parameter * LARGE.parameters)


def test_float32_needs_no_second_copy() -> None:
    assert states(0, precision="fp32") == 16 * LARGE.parameters
    assert needs(LARGE, spec(precision="fp32"), 0, 8, 0).optimizer == 8 * LARGE.parameters


def test_adapters_need_states_for_themselves_alone_and_4_bits_a_quarter() -> None:
    small = Footprint(7 * BILLION, 10**7, 6 * BILLION, 1e6, 1e5, 32_000, LARGE.flops)
    assert needs(small, spec(adapter={}), 0, 8, 0).optimizer == 12 * 10**7
    packed = needs(small, spec(adapter={"quantize": "nf4"}), 0, 8, 0).parameters
    assert packed == pytest.approx(0.516 * 6e9 + 2 * 1e9)


def test_activations_grow_with_tokens_and_hold_one_layer_where_the_rest_is_computed_again() -> None:
    assert needs(LARGE, spec(), 2, 8, 1000).activations == 1000 * 1e6
    assert needs(LARGE, spec(activation_checkpointing=True), 2, 8, 1000).activations == 1000 * (1e6 + 1e5)


def test_what_is_offloaded_is_not_the_devices() -> None:
    offloaded = needs(LARGE, spec(zero_stage=3, offload={"optimizer": "cpu", "parameters": "cpu"}), 3, 8, 0)
    assert (offloaded.parameters, offloaded.optimizer) == (0, 0)
    assert offloaded.gradients == needs(LARGE, spec(), 3, 8, 0).gradients > 0
    assert needs(LARGE, spec(zero_stage=1, offload={"optimizer": "cpu"}), 0, 8, 0).optimizer == 12 * LARGE.parameters


def test_a_second_copy_is_held_by_each_group() -> None:
    more = needs(LARGE, spec(zero_stage=3, hpz_group=4), 3, 8, 0).buffers - needs(LARGE, spec(), 3, 8, 0).buffers
    assert more == 2 * LARGE.parameters / 4


def test_split_layers_leave_the_rest_whole_and_fewer_replicas() -> None:
    split = needs(LARGE, spec(zero_stage=1, tensor_parallel=2), 1, 8, 0)
    left = LARGE.parameters - LARGE.linear / 2
    assert split.parameters == 2 * left
    assert split.optimizer == 12 * left / 4


def test_shared_rows_share_activations() -> None:
    assert needs(LARGE, spec(sequence_parallel=4), 0, 8, 1000).activations == 1000 * 1e6 / 4


def test_buffers_are_what_deepspeed_is_told() -> None:
    def buffers(stage: int) -> float:
        return needs(LARGE, spec(), stage, 8, 0).buffers - needs(LARGE, spec(), 0, 8, 0).buffers

    sizes = buckets(LARGE.parameters, LARGE.trainable)
    assert buffers(1) == buffers(2) == 2 * sizes["reduce_bucket_size"]
    assert buffers(3) == 2 * (sizes["reduce_bucket_size"] + sizes["stage3_max_live_parameters"])


def test_as_many_records_fit_as_memory_is_left_for() -> None:
    fixed = needs(LARGE, spec(), 3, 8, 0).total
    memory = int((fixed + 5.5 * 512 * 1e6) / USABLE + RESERVED_BYTES)
    assert largest_micro_batch(LARGE, spec(), 3, 512, memory) == 5
    assert largest_micro_batch(LARGE, spec(), 0, 512, 24 * GIB) == 0


DEVICE = Accelerator("X", ("X",), GIB, 1e15, "https://x", 3.6)


def test_time_is_flops_over_what_the_devices_do_and_price_follows() -> None:
    lengths = np.full(100, 1000)
    found = estimate(LARGE, spec(), lengths, 0, DEVICE, 0.5)
    assert found.seconds == pytest.approx(42e9 * 100_000 / (8 * 1e15 * 0.5))
    assert found.usd == pytest.approx(found.seconds * 8 / 1000)
    assert estimate(LARGE, spec(max_steps=1, epochs=2), lengths, 0, DEVICE, 0.5).seconds == pytest.approx(
        found.seconds / 4
    )
    again = estimate(LARGE, spec(activation_checkpointing=True), lengths, 0, DEVICE, 0.5)
    assert again.seconds == pytest.approx(found.seconds * 4 / 3)


def test_a_device_without_a_price_costs_what_nobody_knows() -> None:
    assert estimate(LARGE, spec(), np.ones(1), 0, Accelerator("X", ("X",), GIB, 1e15, "https://x"), 0.5).usd is None


def test_a_model_is_measured_without_its_weights(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES)
    config.save_pretrained(tmp_path)
    found = footprint(tmp_path, "AutoModelForCausalLM", spec())
    model = LlamaForCausalLM(config)
    assert found.parameters == found.trainable == model.num_parameters()
    assert found.vocabulary == 100
    assert found.flops == Flops.of(model)


def test_activations_are_what_a_real_model_keeps(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, use_cache=False)
    config.save_pretrained(tmp_path)
    model = LlamaForCausalLM(config)
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.zeros(1, TOKENS, dtype=torch.int64))
    real = sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in own)
    found = footprint(tmp_path, "AutoModelForCausalLM", spec(precision="fp32")).activation_bytes * TOKENS
    assert 1.0 <= found / real < 1.15


def test_no_mask_of_tokens_x_tokens_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path)
    short = footprint(tmp_path, "AutoModelForCausalLM", spec()).activation_bytes
    monkeypatch.setattr("heliostat.train.planning.footprint.TOKENS", 8 * TOKENS)
    assert footprint(tmp_path, "AutoModelForCausalLM", spec()).activation_bytes <= short


def test_an_encoder_keeps_what_korthikanti_et_al_say(tmp_path: Path) -> None:
    """34 bytes for each token, unit of width and layer (2022, https://arxiv.org/abs/2205.05198, equation 2)."""
    BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536).save_pretrained(
        tmp_path
    )
    found = footprint(tmp_path, "AutoModelForSequenceClassification", spec())
    assert found.activation_bytes / 6 / 384 == pytest.approx(34, rel=0.1)


def test_computing_again_keeps_what_goes_into_each_layer(tmp_path: Path) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path)
    whole, again = (
        footprint(tmp_path, "AutoModelForCausalLM", spec(activation_checkpointing=on)) for on in (False, True)
    )
    assert 2 * 4 * 64 <= again.activation_bytes < 0.15 * whole.activation_bytes
    assert again.layer_bytes == whole.layer_bytes > 0


def test_adapters_are_counted(tmp_path: Path) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path)
    found = footprint(tmp_path, "AutoModelForCausalLM", spec(adapter={"rank": 2, "quantize": "nf4"}))
    assert found.trainable == 4 * 2 * (4 * 128 + 3 * (64 + 128))
    assert found.linear == 4 * (4 * 64 * 64 + 3 * 64 * 128)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model\.source"):
        footprint(tmp_path, "AutoModelForCausalLM", spec())
