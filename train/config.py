"""The `model`, `data` and `train` sections of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Fraction, Positive
from heliostat.train.models.config import AdapterConfig
from heliostat.train.parallel import sharding
from heliostat.train.parallel.sharding import Offload


class Workers(StrictModel):
    """Between how many workers a run may have; one number in a spec means exactly so many."""

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


class TrainConfig(StrictModel):
    """One training run."""

    workers: Workers = Workers()
    """Data-parallel workers (world size): a number, or `{min, max}` to start with what the cluster has, go on with
    fewer after losing some, and take in more as they come."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: a GPU for each worker where the cluster has one."""
    cpus_per_worker: Positive = 1
    global_batch_size: Positive = 32
    """Records per optimizer step, whatever the number of workers."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.06
    """Share of all steps over which the learning rate rises from zero."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    """Stop after this many steps, whatever `epochs` says."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """How slowly AdamW forgets gradients and their squares."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class counts alike in the loss, however many records it has."""
    dropout: Fraction | None = None
    """Replaces every dropout probability of the model's own configuration."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    zero_stage: Literal[0, 1, 2, 3] = 0
    activation_checkpointing: bool = False
    """Keep only what goes into each layer, and compute the rest again on the way back: less memory, a third slower."""
    compile: bool = False
    """Compile each layer with torch.compile; the first steps take minutes longer."""
    adapter: AdapterConfig | None = None
    """Train low-rank adapters and leave the base model as it is; `{}` takes their defaults."""
    offload: Offload = Offload()
    """What waits in the host's memory and leaves more of the GPU's."""
    hpz_group: Positive = 1
    """Stage 3: workers that hold a second copy of the parameters among them, to gather from, such as the GPUs of one
    node (ZeRO++ hpZ); 1 for none."""
    sequence_parallel: Positive = 1
    """Workers that share the tokens of each row (Ulysses), for `causal-lm` on long records."""
    tensor_parallel: Positive = 1
    """Workers that split each layer (AutoTP), for a `causal-lm` whose layers are too large for one."""
    seed: Annotated[int, Field(ge=0)] = 0
    validate_every: Positive | None = None
    """Steps between validations; once an epoch where left out."""
    checkpoint_every: Positive | None = None
    """Steps between checkpoints; at each validation where left out."""
    keep_checkpoints: Positive = 2
    resume: Literal["never", "auto"] = "never"
    """`auto`: go on with the spec's newest run where that has not finished; for drivers that are started again."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times a run may restart from its last complete checkpoint after losing a worker."""
    max_skipped_steps: Annotated[int, Field(ge=0)] = 3
    """Steps in a row that may be left out because loss or gradients are no numbers; the next ends the run."""
    deepspeed: dict[str, Any] = {}
    """Merged over the DeepSpeed configuration that Heliostat derives."""

    @property
    def is_balanced(self) -> bool:
        """Whether each class counts alike."""
        return self.class_weights == "balanced"

    @model_validator(mode="after")
    def _each_worker_has_work(self) -> TrainConfig:
        replicas = self.workers.max // sharding.workers_per_replica(self)
        if self.global_batch_size < replicas:
            raise ValueError(
                f"train.global_batch_size: {self.global_batch_size} given; must be at least train.workers "
                f"({replicas}), so that each has a record"
            )
        return self

    @model_validator(mode="after")
    def _can_be_packed(self) -> TrainConfig:
        if self.adapter and self.adapter.quantize and self.zero_stage == 3:
            raise ValueError(
                f"train.adapter.quantize: {self.adapter.quantize} given; weights in 4 bits cannot be sharded, "
                "zero_stage 0, 1 and 2 are allowed"
            )
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> TrainConfig:
        sharding.check(self)
        return self

    @field_validator("deepspeed")
    @classmethod
    def _keeps_the_contract(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {
            "train_batch_size",
            "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps",
        } & value.keys()
        if ours:
            raise ValueError(f"{', '.join(sorted(ours))} cannot be set; train.global_batch_size decides them")
        if layout := sharding.RANK_KEYS & value.keys():
            raise ValueError(
                f"{', '.join(sorted(layout))} cannot be set; train.sequence_parallel and train.tensor_parallel do that"
            )
        return value
