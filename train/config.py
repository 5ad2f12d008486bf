"""The `train` section of a spec."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Fraction, Positive
from heliostat.train.models.config import AdapterConfig
from heliostat.train.parallel.config import RANK_KEYS, ParallelConfig


class EarlyStoppingConfig(StrictModel):
    """When a run ends before its last step: its metric has not improved in some validations."""

    patience: Positive
    """Validations in a row in which the task's metric does not improve; the run ends after the last of them."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """An improvement is larger than this, counted from the last validation that was one."""


class StageConfig(StrictModel):
    """Values of a part of a run; those that are left out are as in `train`."""

    until: Annotated[float, Field(gt=0, le=1)]
    """Share of the run's steps at which the part ends; it begins where the one before it ends."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """As `train.learning_rate`: the part has its piece of the schedule over the whole run."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    betas: tuple[Fraction, Fraction] | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The values by their keys in `train`."""
        return self.model_dump(exclude={"until"}, exclude_none=True)


CHANGEABLE = tuple(name for name in StageConfig.model_fields if name != "until")
"""Keys of `train` that may change between two steps of a run."""


class TrainConfig(ParallelConfig):
    """One training run."""

    global_batch_size: Positive = 32
    """Records per optimizer step, whatever the number of workers."""
    max_micro_batch: Positive | None = None
    """Most records that a worker computes at once; what fits is found below it, and the global batch stays."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.06
    """Share of all steps over which the learning rate rises from zero."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    """Stop after this many steps, whatever `epochs` says."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """AdamW's beta1 and beta2: decay rates of the moving averages of the gradient and of its square."""
    stages: list[StageConfig] = []
    """`[{until: 0.25, learning_rate: 1e-3}]` trains the first quarter of the steps with that rate, the rest with the
    values of `train`: the schedule that a search with `tune.scheduler: pbt` finds."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weights the loss so that every class counts equally, however many records it has."""
    dropout: Fraction | None = None
    """Replaces every dropout probability of the model's own configuration."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 if the devices of all workers compute it, else fp32, which is faster there than bf16 emulated. A run
    or search that goes on elsewhere keeps what it began with."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and recompute the rest in the backward pass: less memory, about a third slower."""
    adapter: AdapterConfig | None = None
    """Train low-rank adapters and freeze the base model; `{}` takes their defaults."""
    seed: Annotated[int, Field(ge=0)] = 0
    validate_every: Positive | None = None
    """Steps between validations; once an epoch if omitted."""
    early_stopping: EarlyStoppingConfig | None = None
    """`{patience: 3}` ends the run when three validations in a row bring nothing new; the best weights are published.
    The learning rate still follows `epochs`."""
    checkpoint_every: Positive | None = None
    """Steps between checkpoints; at each validation if omitted."""
    keep_checkpoints: Positive = 2
    resume: Literal["never", "auto"] = "never"
    """`auto`: continue the spec's newest run if it has not finished; for drivers that may be restarted."""
    promote: Literal["first", "better"] = "first"
    """Which new version becomes `production` by itself: the model's first one; with `better`, any that has a better
    metric on the test split than the version in production, which is measured on it too."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Times a run may restart from its last complete checkpoint after losing a worker."""
    max_skipped_steps: Annotated[int, Field(ge=0)] = 3
    """Consecutive steps that may be skipped for a loss or gradients that are NaN or infinite; the next ends the run."""
    deepspeed: dict[str, Any] = {}
    """Merged over the DeepSpeed configuration that Heliostat derives."""

    @property
    def is_balanced(self) -> bool:
        """Whether every class counts equally in the loss."""
        return self.class_weights == "balanced"

    @model_validator(mode="after")
    def _each_worker_has_work(self) -> TrainConfig:
        replicas = self.workers.max // self.workers_per_replica
        if self.global_batch_size < replicas:
            raise ValueError(
                f"train.global_batch_size: {self.global_batch_size} given; must be at least train.workers "
                f"({replicas}), so that each has a record"
            )
        return self

    @field_validator("stages")
    @classmethod
    def _come_one_after_another(cls, stages: list[StageConfig]) -> list[StageConfig]:
        if any(after.until <= before.until for before, after in pairwise(stages)):
            raise ValueError("until has to be above that of the stage before")
        if not all(stage.changes for stage in stages):
            raise ValueError(f"each stage needs at least one of {', '.join(CHANGEABLE)}")
        return stages

    @model_validator(mode="after")
    def _can_be_packed(self) -> TrainConfig:
        if self.adapter and self.adapter.quantize and self.zero_stage == 3:
            raise ValueError(
                f"train.adapter.quantize: {self.adapter.quantize} given; weights in 4 bits cannot be sharded, "
                "zero_stage 0, 1 and 2 are allowed"
            )
        return self

    @model_validator(mode="after")
    def _can_be_split(self) -> TrainConfig:
        if self.tensor_parallel > 1 and self.adapter:
            raise ValueError(
                f"train.tensor_parallel: {self.tensor_parallel} cannot go with train.adapter, "
                "whose layers are not split"
            )
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
        if layout := RANK_KEYS & value.keys():
            raise ValueError(
                f"{', '.join(sorted(layout))} cannot be set; train.sequence_parallel and train.tensor_parallel do that"
            )
        return value


def check_task(train: TrainConfig, task: str) -> None:
    """Raises ValueError if `task` does not support the layout or what is to be published."""
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
    """Raises ValueError for settings that do not apply to networks that are built here."""
    for key in ("adapter", "activation_checkpointing", "dropout"):
        if getattr(train, key):
            raise ValueError(f"train.{key}: given; it is for base models that exist, and model.{name} is built here")
    if name == "gan" and train.precision == "bf16":
        raise ValueError("train.precision: bf16 given; model.gan is trained in fp32, auto and fp32 are allowed")
    if name == "gan" and train.zero_stage == 3:
        raise ValueError("train.zero_stage: 3 given; model.gan needs the discriminator whole, 0, 1 and 2 are allowed")
