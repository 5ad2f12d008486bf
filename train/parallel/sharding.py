"""DeepSpeed's configuration for a run's layout, and which base models do not support a layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra.errors import ConfigError

if TYPE_CHECKING:
    from heliostat.train.parallel.config import ParallelConfig


def check_model(train: ParallelConfig, folder: Path) -> None:
    """Raises ConfigError if the base model in `folder` does not support the layout."""
    size = train.workers_per_replica
    if size == 1:
        return
    key = "train.sequence_parallel" if train.sequence_parallel > 1 else "train.tensor_parallel"
    from transformers import AutoConfig

    from heliostat.train.data.packing import MODEL_TYPES, can_pack

    config = AutoConfig.from_pretrained(folder)
    if not can_pack(config):
        raise ConfigError(
            f"{key}: {size} needs a model of type {', '.join(sorted(MODEL_TYPES))}; "
            f"model.source is a {config.model_type}"
        )
    counts = {"attention heads": config.num_attention_heads, "key-value heads": config.num_key_value_heads}
    if train.tensor_parallel > 1:
        counts["MLP columns"] = config.intermediate_size
        for bias in ("attention_bias", "mlp_bias"):
            if getattr(config, bias, False):  # DeepSpeed would add the unsplit biases of split layers once per worker
                raise ConfigError(f"{key}: {size} needs layers without biases; model.source has {bias}")
    for name, heads in counts.items():
        if heads % size:
            raise ConfigError(f"{key}: {size} does not divide the {heads} {name} of model.source")


def buckets(parameters: int, trainable: int) -> dict[str, int]:
    """DeepSpeed's bucket sizes for reducing and, at stage 3, gathering, for a model of this size.

    DeepSpeed's defaults are for large models: for a model of one million parameters it would allocate 500 million
    gradients, and at stage 3 it would never release parameters if there are fewer than a billion.
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


def zero_optimization(train: ParallelConfig) -> dict[str, Any]:
    """The `zero_optimization` section of DeepSpeed's JSON, without `buckets`."""
    config: dict[str, Any] = {"stage": train.zero_stage}
    for name, device in (("offload_optimizer", train.offload.optimizer), ("offload_param", train.offload.parameters)):
        if device != "none":
            config[name] = {"device": device}
    if train.hpz_group > 1:
        config["zero_hpz_partition_size"] = train.hpz_group
    return config


def replica(train: ParallelConfig, rank: int, size: int) -> tuple[int, int]:
    """Index of the data-parallel replica of `rank`, and number of replicas; each replica has its own records."""
    together = train.workers_per_replica
    return rank // together, size // together
