"""The `model`, `data` and `train` sections of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from heliostat.infra.config.strict import StrictModel
from heliostat.train.data.filter import parse
from heliostat.train.parallel import sharding
from heliostat.train.parallel.sharding import Offload

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


class Columns(StrictModel):
    """Which column of the input holds what."""

    text: str = "text"
    """The text; for plain-text `causal-lm` too."""
    label: str | None = "label"
    """The class; null where an `image-generation` is to know of none."""
    features: Annotated[list[str], Field(min_length=1)] | None = None
    """`tabular-classification`: what the model sees; all columns but the label's where left out."""
    categories: list[str] = []
    """`tabular-classification`: those among them that hold words; the others hold numbers."""
    image: str = "image"
    """`image-classification` and `image-generation`: the image."""
    messages: str | None = None
    """`causal-lm`: a list of {role, content} records."""
    prompt: str | None = None
    """`causal-lm`: the instruction; with `answer`."""
    context: str | None = None
    """`causal-lm`: further input, put after the prompt where it is not empty."""
    answer: str | None = None
    """`causal-lm`: the reply that the loss is taken on."""

    @model_validator(mode="after")
    def _is_one_chat(self) -> Columns:
        if (self.prompt is None) != (self.answer is None) or (self.context and not self.prompt):
            raise ValueError("data.columns: prompt and answer go together, and context goes with both")
        if self.messages and self.prompt:
            raise ValueError("data.columns: messages and prompt given; one of the two says what a chat is")
        return self

    @model_validator(mode="after")
    def _hides_the_label(self) -> Columns:
        if self.features and self.label in self.features:
            raise ValueError(
                f"data.columns.features: {self.label!r} given, which is data.columns.label; the model must not see it"
            )
        return self


class Split(StrictModel):
    """Shares of the records held out; which record goes where depends on what it holds alone."""

    validation: Fraction = 0.1
    test: Fraction = 0.1
    stratify: bool = False
    """Whether each class is split in these shares exactly; else all records together are, and about so."""

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"data.split: validation {self.validation} + test {self.test} leaves nothing to train on; "
                "their sum must be below 1"
            )
        return self


class ImageSize(StrictModel):
    """What all images of a data set have in common."""

    height: Positive | None = None
    """Pixels; those of the first image where left out."""
    width: Positive | None = None
    mode: Literal["auto", "rgb", "grey"] = "auto"
    """`auto`: the mode of the first image; coloured ones are refused after a grey one. Grey images are grey in all
    channels of `rgb`; coloured ones, in `grey`, as bright as they look (ITU-R BT.601)."""
    resize: bool = False
    """Whether images of another size are resized; they are refused otherwise."""


class Augment(StrictModel):
    """Random changes to the images of each step of training."""

    crop: Annotated[int, Field(ge=0)] = 0
    """Pixels that an image is moved by at most, up or down and to a side."""
    flip: bool = False
    """Whether half of them are mirrored, left and right."""
    erase: Annotated[int, Field(ge=0)] = 0
    """The side of a square that is blanked out (DeVries and Taylor 2017, cutout)."""


class DataConfig(StrictModel):
    """The records, and how they become numbers."""

    source: str
    """A file, or a folder of files of one format, at a path, `dataset:`, `pkg:`, `pypi:`, `npm:`, `hf:` or `s3://`.

    A path counts from the working directory, or from the folder of the spec where it begins with `./` or `../`.
    """
    format: Literal["auto", "csv", "jsonl", "json", "parquet", "text", "paragraphs", "images", "idx", "sheets"] = "auto"
    """`auto` goes by the names of the files. `paragraphs`: texts that empty lines part; `images`: one sub-folder for
    each class; `idx`: MNIST's; `sheets`: PNG files of which each row is an image, with JSON lists of their labels."""
    where: str | None = None
    """Keep the records for which this is true, such as `source == 'imdb'`."""
    columns: Columns = Columns()
    label_names: dict[str, str] = {}
    """What the labels are called in answers, such as `{"0": negative, "1": positive}`; others stay as they are."""
    split: Split = Split()
    limit: Positive | None = None
    """Keep this many records at most, the same ones each time."""
    missing: Literal["fail", "drop", "fill"] = "fail"
    """What happens to a record with a value missing: an error, it is left out, or, in tables, the training split's mean
    (of numbers) or most frequent value (of words) stands in, in requests too. `fill` leaves out a row without a
    label, for which nothing stands in."""
    na_values: list[str] = []
    """Words that say that a value of a table, or a label, is missing, such as `[NA, "?"]`; an empty cell, null and NaN
    always do."""
    images: ImageSize = ImageSize()
    augment: Augment = Augment()
    max_length: Annotated[int, Field(ge=4)] = 256
    """Tokens a record may have."""
    vocabulary: Annotated[int, Field(ge=16)] = 20_000
    """Words at most, or pieces of words, of a tokenizer that is learned: for models that are built here."""
    overflow: Literal["truncate", "fail"] = "truncate"
    """What happens to a record longer than `max_length`."""

    @field_validator("where")
    @classmethod
    def _can_be_read(cls, expression: str | None) -> str | None:
        if expression is not None:
            parse(expression)
        return expression


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


class AdapterConfig(StrictModel):
    """Low-rank adapters (LoRA), trained in place of the base model's own weights."""

    rank: Positive = 16
    """Columns of the first matrix, rows of the second."""
    alpha: Positive = 32
    """The product of the two counts `alpha / rank` times."""
    dropout: Fraction = 0.0
    """On what goes into the first matrix."""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Linear layers by the last part of their names, such as `[q_proj, v_proj]`."""
    quantize: Literal["nf4"] | None = None
    """`nf4`: the base model's linear layers in 4 bits (QLoRA)."""
    publish: Literal["merged", "adapter"] = "merged"
    """`merged`: one plain model; `adapter`: the adapter alone, and the base model once for all of its adapters."""

    @model_validator(mode="after")
    def _belongs_to_the_base(self) -> AdapterConfig:
        if self.publish == "adapter" and self.quantize:
            raise ValueError(
                f"train.adapter.publish: adapter given; one trained beside weights in {self.quantize} does not belong "
                "to the base model's own, and merged is allowed"
            )
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
