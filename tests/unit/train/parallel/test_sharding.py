"""Which layouts a spec may ask for, what DeepSpeed is told of them, and how each is refused where it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, ModelError
from heliostat.spec import Spec
from heliostat.train.config import TrainConfig
from heliostat.train.engine import deepspeed_config, sized
from heliostat.train.parallel.config import check_device
from heliostat.train.parallel.sharding import buckets, check_model, replica
from heliostat.train.parallel.tensor_parallel import check_split

SIZES = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 12, "num_key_value_heads": 4}


def train_config(**values: Any) -> TrainConfig:
    return build(TrainConfig, {"precision": "bf16", **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offload": {"optimizer": "cpu"}}, "train.offload.optimizer: 'cpu' needs train.zero_stage 1 or more, not 0"),
        (
            {"offload": {"parameters": "cpu"}, "zero_stage": 2},
            "train.offload.parameters: 'cpu' needs train.zero_stage 3 or more, not 2",
        ),
        (
            {"offload": {"optimizer": "cpu"}, "zero_stage": 1, "use_gpu": False},
            "train.offload.optimizer: 'cpu' frees the memory of GPUs, and train.use_gpu is false; allowed without "
            "them: none",
        ),
        (
            {"offload": {"optimizer": "nvme"}, "zero_stage": 3},
            r"offload.optimizer: 'nvme' given; .* allowed: none, cpu",
        ),
        ({"offload": {"parameters": "nvme"}, "zero_stage": 3}, "offload.parameters: .nvme. given; on NVMe they would"),
        ({"offload": {"optimizer": "disk"}}, "offload.optimizer: 'disk' given; must be 'none' or 'cpu'"),
        ({"hpz_group": 2, "workers": 4, "zero_stage": 2}, "train.hpz_group: 2 needs train.zero_stage 3, not 2"),
        ({"hpz_group": 3, "workers": 4, "zero_stage": 3}, r"train.hpz_group: 3 does not divide train.workers \(4\)"),
        ({"hpz_group": 4, "workers": 4, "zero_stage": 3}, "train.hpz_group: 4 is all workers"),
        (
            {"hpz_group": 2, "workers": {"min": 2, "max": 4}, "zero_stage": 3},
            "train.hpz_group: 2 needs a fixed number of train.workers, not 2 to 4",
        ),
        ({"sequence_parallel": 2}, r"train.sequence_parallel: 2 does not divide train.workers \(1\)"),
        ({"sequence_parallel": 0}, "sequence_parallel: 0 given; must be greater than 0"),
        (
            {"sequence_parallel": 2, "workers": {"min": 2, "max": 4}},
            "train.sequence_parallel: 2 needs a fixed number of train.workers, not 2 to 4",
        ),
        ({"tensor_parallel": 2, "workers": 3, "zero_stage": 1}, r"train.tensor_parallel: 2 does not divide .* \(3\)"),
        ({"tensor_parallel": 2, "workers": 2}, "train.tensor_parallel: 2 needs train.zero_stage 1 or 2, not 0"),
        (
            {"tensor_parallel": 2, "sequence_parallel": 2, "workers": 4, "zero_stage": 1},
            r"train.tensor_parallel: 2 cannot go with train.sequence_parallel \(2\)",
        ),
        (
            {"tensor_parallel": 2, "workers": 4, "zero_stage": 3},
            "train.tensor_parallel: 2 needs train.zero_stage 1 or 2, not 3",
        ),
        (
            {"tensor_parallel": 2, "workers": 2, "zero_stage": 1, "adapter": {}},
            "train.tensor_parallel: 2 cannot go with train.adapter",
        ),
        ({"sequence_parallel": 2, "workers": 2, "compile": True}, "train.sequence_parallel: 2 cannot go with"),
        (
            {"workers": 8, "sequence_parallel": 2, "global_batch_size": 3},
            r"train.global_batch_size: 3 given; must be at least train.workers \(4\)",
        ),
        ({"deepspeed": {"tensor_parallel": {"autotp_size": 2}}}, "tensor_parallel cannot be set"),
        ({"deepspeed": {"sequence_parallel_size": 2}}, "sequence_parallel_size cannot be set"),
    ],
)
def test_a_layout_that_cannot_work_is_refused_by_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        train_config(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "section", "expected"),
    [
        ({"zero_stage": 1}, "zero_optimization", {"stage": 1}),
        (
            {"zero_stage": 2, "offload": {"optimizer": "cpu"}},
            "zero_optimization",
            {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        ),
        (
            {"zero_stage": 3, "offload": {"optimizer": "cpu", "parameters": "cpu"}},
            "zero_optimization",
            {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
        ),
        (
            {"zero_stage": 3, "hpz_group": 2, "workers": 4},
            "zero_optimization",
            {"stage": 3, "zero_hpz_partition_size": 2},
        ),
        ({"sequence_parallel": 2, "workers": 4}, "tensor_parallel", None),
    ],
)
def test_what_deepspeed_is_told(values: dict[str, Any], section: str, expected: Any) -> None:
    config = deepspeed_config(train_config(**values), 4, 2)
    assert config.get(section) == expected
    assert config["zero_force_ds_cpu_optimizer"] is False  # PyTorch's AdamW runs where its state is


@pytest.mark.parametrize(
    ("parameters", "reduced", "live"),
    [(1000, 2**20, 2**20), (80_000_000, 10_000_000, 10_000_000), (70 * 10**9, 50_000_000, 10**9)],
)
def test_what_is_reduced_and_gathered_at_a_time_follows_the_model(parameters: int, reduced: int, live: int) -> None:
    found = buckets(parameters, parameters)
    assert found["reduce_bucket_size"] == reduced
    assert found["stage3_max_live_parameters"] == live


def test_sizes_that_the_spec_gives_stay() -> None:
    asked = {"zero_optimization": {"stage": 3, "reduce_bucket_size": 5}}
    config = sized(asked, torch.nn.Linear(10, 10))["zero_optimization"]
    assert config["reduce_bucket_size"] == 5
    assert config["stage3_prefetch_bucket_size"] == 2**20


def test_split_layers_are_named_to_deepspeed() -> None:
    config = deepspeed_config(train_config(tensor_parallel=2, workers=4, zero_stage=1), 4, 2)["tensor_parallel"]
    assert config["autotp_size"] == 2
    kinds = [spec["partition_type"] for spec in config["partition_config"]["layer_specs"]]
    assert kinds == ["column", "row", "skip"]


@pytest.mark.parametrize("key", ["sequence_parallel", "tensor_parallel"])
def test_workers_that_share_records_do_not_divide_the_global_batch(key: str) -> None:
    train = train_config(**{key: 2, "workers": 4, "zero_stage": 1, "global_batch_size": 24})
    assert [replica(train, rank, 4) for rank in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    config = deepspeed_config(train, 4, 3)
    assert config["gradient_accumulation_steps"] == 24 / (2 * 3)
    assert config["train_batch_size"] == 3 * 4 * 4  # DeepSpeed counts each worker


def test_without_gpus_offloading_is_refused() -> None:
    train = train_config(zero_stage=1, offload={"optimizer": "cpu"})
    check_device(train, use_gpu=True)
    with pytest.raises(ConfigError, match=r"train.offload.optimizer: 'cpu' frees the memory of GPUs, and the workers"):
        check_device(train, use_gpu=False)
    check_device(train_config(zero_stage=1), use_gpu=False)


@pytest.mark.parametrize("key", ["sequence_parallel", "tensor_parallel"])
def test_the_task_must_be_a_language_model(key: str) -> None:
    train = {"workers": 2, "zero_stage": 1, key: 2}
    values: dict[str, Any] = {"name": "n", "model": {"source": "m"}, "data": {"source": "d"}, "train": train}
    assert build(Spec, {**values, "task": "causal-lm"}).train.workers.max == 2
    with pytest.raises(ConfigError, match=f"train.{key}: 2 is for decoders, of task causal-lm"):
        build(Spec, {**values, "task": "text-classification"})


@pytest.mark.parametrize(
    ("values", "sizes", "message"),
    [
        ({"sequence_parallel": 4}, {}, None),
        ({"tensor_parallel": 4}, {}, None),
        ({"sequence_parallel": 5}, {}, "train.sequence_parallel: 5 does not divide the 12 attention heads"),
        ({"sequence_parallel": 3}, {}, "train.sequence_parallel: 3 does not divide the 4 key-value heads"),
        ({"tensor_parallel": 6}, {}, "train.tensor_parallel: 6 does not divide the 4 key-value heads"),
        ({"tensor_parallel": 2}, {"attention_bias": True}, "2 needs layers without biases; .* has attention_bias"),
        (
            {"tensor_parallel": 4},
            {"intermediate_size": 66},
            "train.tensor_parallel: 4 does not divide the 66 MLP columns",
        ),
    ],
)
def test_heads_must_divide(tmp_path: Path, values: dict[str, int], sizes: dict[str, Any], message: str | None) -> None:
    LlamaConfig(**{**SIZES, "intermediate_size": 64, **sizes}).save_pretrained(tmp_path)
    train = train_config(workers=60, zero_stage=1, global_batch_size=60, **values)
    if message is None:
        check_model(train, tmp_path)
        return
    with pytest.raises(ConfigError, match=message):
        check_model(train, tmp_path)


def test_a_model_with_a_sliding_window_is_shared_as_any_other(tmp_path: Path) -> None:
    Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8).save_pretrained(tmp_path)
    check_model(train_config(workers=2, sequence_parallel=2), tmp_path)


def test_no_base_model_is_read_where_nothing_is_shared(tmp_path: Path) -> None:
    check_model(train_config(workers=2), tmp_path / "nothing is read")


def test_a_model_in_which_nothing_is_split_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    check_split(model, 1)
    with pytest.raises(ModelError, match=r"train.tensor_parallel: 2 given, but no layer of this model has been split"):
        check_split(model, 2)
