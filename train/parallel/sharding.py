"""How a run is laid out over its workers: offloading, hierarchical partitions, sequence parallelism.

The keys of the `train` section, what DeepSpeed is told of them, and where they cannot work: with the rest of the
section (`check`), with the task and the base model (`check_model`), or without GPUs (`check_device`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationInfo, field_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.errors import ConfigError

if TYPE_CHECKING:
    from heliostat.train.config import TrainConfig

RANK_KEYS = frozenset({"sequence_parallel_size", "data_parallel_size", "tensor_parallel", "pipeline"})
"""Keys of DeepSpeed's own that change which records a worker must see, or which weights it has."""
NVME = {
    "optimizer": "what DeepSpeed swaps to NVMe is outside its checkpoints' shards, so that no run could go on with "
    "another number of workers; allowed: none, cpu",
    "parameters": "on NVMe they would leave the host with the optimizer's state, which is six times as large; "
    "allowed: none, cpu",
}
"""Why nothing waits there."""


class Offload(StrictModel):
    """What waits in the host's memory, not the GPU's, while it is not needed."""

    optimizer: Literal["none", "cpu"] = "none"
    """AdamW's state and the float32 weights, and the update itself; from `train.zero_stage` 1 on."""
    parameters: Literal["none", "cpu"] = "none"
    """Each worker's shard of the weights; at `train.zero_stage` 3."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_to_disk(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "nvme":
            raise ValueError(NVME[str(info.field_name)])
        return value

    def wanted(self) -> dict[str, str]:
        """Dotted key -> device of what is offloaded."""
        return {f"train.offload.{name}": device for name, device in self.model_dump().items() if device != "none"}


def check(train: TrainConfig) -> None:
    """Raises ValueError, naming the key, where the rest of the `train` section rules a layout out."""
    stages = {"train.offload.optimizer": 1, "train.offload.parameters": 3}
    for key, device in train.offload.wanted().items():
        if train.zero_stage < stages[key]:
            raise ValueError(f"{key}: {device!r} needs train.zero_stage {stages[key]} or more, not {train.zero_stage}")
        if train.use_gpu is False:
            raise ValueError(_no_gpu(key, device, "train.use_gpu is false"))
    for key in ("hpz_group", "sequence_parallel", "tensor_parallel"):
        if getattr(train, key) > 1:
            _divides_workers(train, f"train.{key}", getattr(train, key))
    if train.tensor_parallel > 1:
        _fits_tensor_parallel(train)
    if workers_per_replica(train) > 1 and train.compile:
        key = "sequence_parallel" if train.sequence_parallel > 1 else "tensor_parallel"
        raise ValueError(f"train.{key}: {getattr(train, key)} cannot go with train.compile")
    if train.hpz_group > 1 and train.zero_stage != 3:
        raise ValueError(f"train.hpz_group: {train.hpz_group} needs train.zero_stage 3, not {train.zero_stage}")
    if train.hpz_group == train.workers.max > 1:
        raise ValueError(
            f"train.hpz_group: {train.hpz_group} is all workers, which hold each parameter together as it is; "
            "fewer are allowed, such as the GPUs of one node"
        )


def _divides_workers(train: TrainConfig, key: str, size: int) -> None:
    least, most = train.workers.min, train.workers.max
    if least != most:
        raise ValueError(f"{key}: {size} needs a fixed number of train.workers, not {least} to {most}")
    if most % size:
        raise ValueError(f"{key}: {size} does not divide train.workers ({most})")


def _fits_tensor_parallel(train: TrainConfig) -> None:
    size = train.tensor_parallel
    if train.zero_stage not in (1, 2):
        raise ValueError(f"train.tensor_parallel: {size} needs train.zero_stage 1 or 2, not {train.zero_stage}")
    if train.sequence_parallel > 1:
        raise ValueError(
            f"train.tensor_parallel: {size} cannot go with train.sequence_parallel ({train.sequence_parallel})"
        )
    if train.adapter:
        raise ValueError(f"train.tensor_parallel: {size} cannot go with train.adapter, whose layers are not split")


def check_device(train: TrainConfig, use_gpu: bool) -> None:
    """Raises ConfigError where GPUs are needed and workers get none."""
    for key, device in train.offload.wanted().items():
        if not use_gpu:
            raise ConfigError(_no_gpu(key, device, "the workers get none here"))


def _no_gpu(key: str, device: str, why: str) -> str:
    return f"{key}: {device!r} frees the memory of GPUs, and {why}; allowed without them: none"


def check_task(train: TrainConfig, task: str) -> None:
    """Raises ValueError where `task` rules a layout out, or what is published."""
    if train.adapter and train.adapter.publish == "adapter" and task != "causal-lm":
        raise ValueError(
            f"train.adapter.publish: adapter is for task causal-lm; a model for {task} has a new head too, and merged "
            "is allowed"
        )
    for key in ("sequence_parallel", "tensor_parallel"):
        if getattr(train, key) > 1 and task != "causal-lm":
            raise ValueError(
                f"train.{key}: {getattr(train, key)} is for decoders, of task causal-lm; with {task} 1 is allowed"
            )


def check_network(train: TrainConfig, name: str) -> None:
    """Raises ValueError for what the models that are built here have no use for."""
    for key in ("adapter", "activation_checkpointing", "dropout"):
        if getattr(train, key):
            raise ValueError(f"train.{key}: given; it is for base models that exist, and model.{name} is built here")
    if name == "gan" and train.precision != "fp32":
        raise ValueError(f"train.precision: {train.precision} given; model.gan is trained in fp32")
    if name == "gan" and train.zero_stage == 3:
        raise ValueError("train.zero_stage: 3 given; model.gan needs the discriminator whole, 0, 1 and 2 are allowed")


def check_model(train: TrainConfig, folder: Path) -> None:
    """Raises ConfigError where the base model in `folder` rules a layout out."""
    size = workers_per_replica(train)
    if size == 1:
        return
    key = "train.sequence_parallel" if train.sequence_parallel > 1 else "train.tensor_parallel"
    from transformers import AutoConfig

    from heliostat.train.data.packing import MODEL_TYPES, can_pack

    config = AutoConfig.from_pretrained(folder)
    if not can_pack(config):
        raise ConfigError(
            f"{key}: {size} needs a model of type {', '.join(sorted(MODEL_TYPES))} without a sliding window; "
            f"model.source is a {config.model_type}"
        )
    counts = {"attention heads": config.num_attention_heads, "key-value heads": config.num_key_value_heads}
    if train.tensor_parallel > 1:
        counts["MLP columns"] = config.intermediate_size
        for bias in ("attention_bias", "mlp_bias"):
            if getattr(config, bias, False):  # DeepSpeed counts the whole biases of split layers once for each worker
                raise ConfigError(f"{key}: {size} needs layers without biases; model.source has {bias}")
    for name, heads in counts.items():
        if heads % size:
            raise ConfigError(f"{key}: {size} does not divide the {heads} {name} of model.source")


def buckets(parameters: int, trainable: int) -> dict[str, int]:
    """How many numbers DeepSpeed reduces and, at stage 3, gathers at a time, in a model of so many parameters.

    DeepSpeed's own numbers are for large models: it would allocate 500 million gradients for a model of one million,
    and keep whatever has fewer than a billion parameters whole at stage 3.
    """
    live = _part_of(parameters, 1_000_000_000)
    return {
        "reduce_bucket_size": _part_of(trainable, 50_000_000),
        "stage3_max_live_parameters": live,
        "stage3_max_reuse_distance": live,
        "stage3_prefetch_bucket_size": min(live, 50_000_000),
    }


def _part_of(count: int, most: int) -> int:
    return min(most, max(count // 8, 2**20))


def zero_optimization(train: TrainConfig) -> dict[str, Any]:
    """The section of that name in DeepSpeed's JSON, but for `buckets`."""
    config: dict[str, Any] = {"stage": train.zero_stage}
    for name, device in (("offload_optimizer", train.offload.optimizer), ("offload_param", train.offload.parameters)):
        if device != "none":
            config[name] = {"device": device}
    if train.hpz_group > 1:
        config["zero_hpz_partition_size"] = train.hpz_group
    return config


def workers_per_replica(train: TrainConfig) -> int:
    """Workers that take the same records, and share their tokens or the layers; neighbours by rank."""
    return train.sequence_parallel * train.tensor_parallel


def replica(train: TrainConfig, rank: int, size: int) -> tuple[int, int]:
    """Which of how many data-parallel replicas `rank` of `size` workers belongs to: each takes its own records."""
    together = workers_per_replica(train)
    return rank // together, size // together
