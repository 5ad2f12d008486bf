"""The precision that a run computes in: what `train.precision: auto` is on its workers' devices."""

from __future__ import annotations

from heliostat.train.config import TrainConfig
from heliostat.train.models.architectures.config import ModelConfig


def settled(train: TrainConfig, model: ModelConfig, has_bf16: bool) -> TrainConfig:
    """`train` with bf16 in place of `auto` where the devices compute it (`has_bf16`), with fp32 elsewhere.

    A GAN is trained in fp32 on any device.
    """
    if train.precision != "auto":
        return train
    return with_precision(train, "bf16" if has_bf16 and model.gan is None else "fp32")


def is_bf16(train: TrainConfig) -> bool:
    """Whether it is bf16; what `auto` is must be settled by then."""
    assert train.precision != "auto"
    return train.precision == "bf16"


def with_precision(train: TrainConfig, precision: str) -> TrainConfig:
    """`train` with another precision."""
    return train.model_copy(update={"precision": precision})


def explained(able: str, precision: str, lacking: int, workers: int) -> str:
    """A line on the `precision` of a run where so many of its workers' devices do not compute bfloat16.

    Empty if all do, or if it would be fp32 anyway: `able` is what it would be if all did.
    """
    if not lacking or able == "fp32":
        return ""
    if precision == "bf16":
        return f"train.precision: bf16, which {lacking} of {workers} workers emulate: slower than fp32"
    return f"train.precision: fp32, since {lacking} of {workers} workers cannot compute bf16 in hardware"
