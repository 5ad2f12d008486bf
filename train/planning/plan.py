"""Estimates what a run needs and costs: memory per worker at each ZeRO stage, largest micro-batch, time and price."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from heliostat.infra.accelerators import Accelerator
from heliostat.infra.memory import GIB
from heliostat.train.config import TrainConfig
from heliostat.train.models.kernels.cross_entropy import CHUNK
from heliostat.train.parallel.sharding import buckets
from heliostat.train.planning.footprint import Footprint
from heliostat.train.precision import is_bf16

STAGES = (0, 1, 2, 3)
PACKED_BYTES = 0.516
"""Bytes of a weight in 4-bit NormalFloat, with its scales (Dettmers et al. 2023, section 3)."""
USABLE = 0.9
"""Share of a device's memory, after RESERVED_BYTES, that a run can use: the rest is lost to fragmentation."""
RESERVED_BYTES = 1 * GIB
"""Memory used by the device's driver and libraries."""


@dataclass(frozen=True)
class Needs:
    """Memory of one worker, in bytes."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    """Buckets for gathering and reducing, and one chunk of the logits."""

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(getattr(self, one.name) for one in fields(self))


def needs(model: Footprint, train: TrainConfig, stage: int, workers: int, tokens: int) -> Needs:
    """Memory of each of `workers` at ZeRO `stage`, for micro-batches of `tokens` tokens.

    Model states as in ZeRO (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 3): with Adam in bf16
    2 bytes per parameter, 2 for its gradient, 12 for the optimizer's float32 copy and moments; sharded among the
    workers from stage 3, 2 and 1 on, respectively. Activations are counted (see `footprint`). Offloaded states are
    excluded; tensor and sequence parallelism, and hpZ's second copy of the parameters, are considered.
    """
    size, state_size = (2, 12) if is_bf16(train) else (4, 8)
    model = _share(model, train)
    workers //= train.tensor_parallel
    second = model.parameters * size / train.hpz_group if stage == 3 and train.hpz_group > 1 else 0
    packed = model.linear if train.adapter and train.adapter.quantize else 0
    parameters = (model.parameters - packed) * size + packed * PACKED_BYTES
    states = model.trainable * state_size
    at_a_time = buckets(model.parameters, model.trainable)
    reduced = at_a_time["reduce_bucket_size"] * size if stage > 0 else 0
    gathered = at_a_time["stage3_max_live_parameters"] * size if stage == 3 else 0
    layer = model.layer_bytes if train.activation_checkpointing else 0

    def shard(whole: float, first_stage: int, offload: str = "none") -> float:
        if stage < first_stage:
            return whole
        return whole / workers if offload == "none" else 0

    return Needs(
        parameters=shard(parameters, 3, train.offload.parameters),
        gradients=shard(model.trainable * size, 2),
        optimizer=shard(states, 1, train.offload.optimizer),
        activations=tokens * (model.activation_bytes + layer),
        buffers=second + reduced + gathered + CHUNK * model.vocabulary * (size + 4 + 4),
    )


def _share(model: Footprint, train: TrainConfig) -> Footprint:
    """One worker's part of a model with tensor or sequence parallelism."""
    split, tokens = model.linear * (1 - 1 / train.tensor_parallel), train.sequence_parallel
    return replace(
        model,
        parameters=round(model.parameters - split),
        trainable=round(model.trainable - split) if train.tensor_parallel > 1 else model.trainable,
        activation_bytes=model.activation_bytes / tokens,
        layer_bytes=model.layer_bytes / tokens,
    )


def largest_micro_batch(model: Footprint, train: TrainConfig, stage: int, length: int, memory_bytes: int) -> int:
    """Records of `length` tokens per micro-batch that fit on a device with this memory; 0 if not even one does."""
    workers = train.workers.max
    states = needs(model, train, stage, workers, 0).total
    each = needs(model, train, stage, workers, length).total - states
    return max(0, int((USABLE * (memory_bytes - RESERVED_BYTES) - states) // each))


@dataclass(frozen=True)
class Estimate:
    """Duration and price of a run on one kind of accelerator, one per worker."""

    seconds: float
    usd: float | None
    """None if the price is unknown."""


def estimate(
    model: Footprint, train: TrainConfig, lengths: np.ndarray, targets: int, device: Accelerator, mfu: float
) -> Estimate:
    """Time and price of training on records of `lengths` tokens, `targets` of which have a loss.

    FLOPs over peak FLOP/s times `mfu`; activation checkpointing computes each forward pass twice. Startup, validation
    and publishing are not included.
    """
    steps = -(-len(lengths) // train.global_batch_size) * train.epochs
    epochs = train.epochs * min(1.0, (train.max_steps or steps) / steps)
    flops = epochs * model.flops.needed(lengths, targets) * (4 / 3 if train.activation_checkpointing else 1)
    seconds = flops / (train.workers.max * device.peak_flops * mfu)
    price = None if device.usd_per_hour is None else seconds / 3600 * train.workers.max * device.usd_per_hour
    return Estimate(seconds, price)
