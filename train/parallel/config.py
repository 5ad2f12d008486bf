"""The parallel layout of a run: keys of the `train` section, and which combinations are not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Positive
from heliostat.infra.errors import ConfigError

RANK_KEYS = frozenset({"sequence_parallel_size", "data_parallel_size", "tensor_parallel", "pipeline"})
"""Keys of DeepSpeed's own that change which records or weights a rank needs."""
NVME = {
    "optimizer": "what DeepSpeed swaps to NVMe is outside its checkpoints' shards, so that no run could go on with "
    "another number of workers; allowed: none, cpu",
    "parameters": "on NVMe they would leave the host with the optimizer's state, which is six times as large; "
    "allowed: none, cpu",
}
"""Why offloading to NVMe is not supported."""


class Workers(StrictModel):
    """Fewest and most workers of a run; a single number in a spec sets both."""

    min: Positive = 1
    max: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int):
            return {"min": value, "max": value}
        if not isinstance(value, Mapping):
            raise ValueError("a number or {min, max} is allowed")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"train.workers: min {self.min} is above max {self.max}")
        return self


class Offload(StrictModel):
    """What to keep in host memory, not GPU memory, while it is not needed."""

    optimizer: Literal["none", "cpu"] = "none"
    """AdamW's state, the float32 weights and the update itself; needs `train.zero_stage` 1 or higher."""
    parameters: Literal["none", "cpu"] = "none"
    """Each worker's shard of the weights; needs `train.zero_stage` 3."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_to_disk(cls, value: Any, info: ValidationInfo) -> Any:
        if value == "nvme":
            raise ValueError(NVME[str(info.field_name)])
        return value

    def wanted(self) -> dict[str, str]:
        """Dotted key -> device of everything that is offloaded."""
        return {f"train.offload.{name}": device for name, device in self.model_dump().items() if device != "none"}


class ParallelConfig(StrictModel):
    """The layout of a run: its workers, and how they divide model, optimizer state and tokens."""

    workers: Workers = Workers()
    """Data-parallel workers (world size): a number, or `{min, max}` to start with what the cluster has, continue with
    fewer after losing some, and add more when they become available."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: a GPU for each worker if the cluster has enough."""
    cpus_per_worker: Positive = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    compile: bool = False
    """Compile each layer with torch.compile; the first steps take minutes longer."""
    offload: Offload = Offload()
    """What to keep in host memory, to save GPU memory."""
    hpz_group: Positive = 1
    """Stage 3: number of workers that hold a second copy of the parameters among them, to gather from, such as the GPUs
    of one node (ZeRO++ hpZ); 1 for none."""
    sequence_parallel: Positive = 1
    """Workers among which the tokens of each row are divided (Ulysses), for `causal-lm` on long records."""
    tensor_parallel: Positive = 1
    """Workers among which each layer is divided (AutoTP), for a `causal-lm` with layers too large for one."""

    @property
    def workers_per_replica(self) -> int:
        """Workers with the same records, which divide their tokens or the layers; ranks that follow one another."""
        return self.sequence_parallel * self.tensor_parallel

    @model_validator(mode="after")
    def _can_be_laid_out(self) -> ParallelConfig:
        _check_offload(self)
        for key in ("hpz_group", "sequence_parallel", "tensor_parallel"):
            if getattr(self, key) > 1:
                _check_divides_workers(self, f"train.{key}", getattr(self, key))
        if self.tensor_parallel > 1:
            _check_tensor_parallel(self)
        if self.workers_per_replica > 1 and self.compile:
            key = "sequence_parallel" if self.sequence_parallel > 1 else "tensor_parallel"
            raise ValueError(f"train.{key}: {getattr(self, key)} cannot go with train.compile")
        _check_hpz_group(self)
        return self


def _check_offload(train: ParallelConfig) -> None:
    stages = {"train.offload.optimizer": 1, "train.offload.parameters": 3}
    for key, device in train.offload.wanted().items():
        if train.zero_stage < stages[key]:
            raise ValueError(f"{key}: {device!r} needs train.zero_stage {stages[key]} or more, not {train.zero_stage}")
        if train.use_gpu is False:
            raise ValueError(_no_gpu(key, device, "train.use_gpu is false"))


def _check_divides_workers(train: ParallelConfig, key: str, size: int) -> None:
    least, most = train.workers.min, train.workers.max
    if least != most:
        raise ValueError(f"{key}: {size} needs a fixed number of train.workers, not {least} to {most}")
    if most % size:
        raise ValueError(f"{key}: {size} does not divide train.workers ({most})")


def _check_tensor_parallel(train: ParallelConfig) -> None:
    size = train.tensor_parallel
    if train.zero_stage not in (1, 2):
        raise ValueError(f"train.tensor_parallel: {size} needs train.zero_stage 1 or 2, not {train.zero_stage}")
    if train.sequence_parallel > 1:
        raise ValueError(
            f"train.tensor_parallel: {size} cannot go with train.sequence_parallel ({train.sequence_parallel})"
        )


def _check_hpz_group(train: ParallelConfig) -> None:
    if train.hpz_group > 1 and train.zero_stage != 3:
        raise ValueError(f"train.hpz_group: {train.hpz_group} needs train.zero_stage 3, not {train.zero_stage}")
    if train.hpz_group == train.workers.max > 1:
        raise ValueError(
            f"train.hpz_group: {train.hpz_group} is all workers, which hold each parameter together as it is; "
            "fewer are allowed, such as the GPUs of one node"
        )


def check_device(train: ParallelConfig, use_gpu: bool) -> None:
    """Raises ConfigError if GPUs are needed and workers get none."""
    for key, device in train.offload.wanted().items():
        if not use_gpu:
            raise ConfigError(_no_gpu(key, device, "the workers get none here"))


def _no_gpu(key: str, device: str, why: str) -> str:
    return f"{key}: {device!r} frees the memory of GPUs, and {why}; allowed without them: none"
