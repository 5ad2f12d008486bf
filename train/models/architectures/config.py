"""The `model` section of a spec: a base model that exists, or one that is built and trained from nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from heliostat.infra.config.strict import StrictModel

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Mlp(StrictModel):
    """Fully connected layers with ReLU between them, on a row of a table or on the pixels of an image."""

    hidden: Annotated[list[Positive], Field(min_length=1)] = [128, 64]
    """Units of each hidden layer."""
    dropout: Share = 0.0
    """After each hidden layer."""


class ResidualCnn(StrictModel):
    """A residual network for small images: a layer, then stages, each half as high and wide as what is before it."""

    channels: Annotated[list[Positive], Field(min_length=1)] = [64, 128, 256]
    """Of the first layer, then of each stage."""
    blocks: Annotated[int, Field(ge=0)] = 1
    """Residual blocks (He et al. 2016) of a stage, after the layer that halves."""
    dropout: Share = 0.0
    """Before the last layer."""


class Lstm(StrictModel):
    """Embeddings and an LSTM over the words of a text, with a tokenizer learned from the training split."""

    embedding: Positive = 128
    """Numbers of a word."""
    hidden: Positive = 128
    """Units of the LSTM."""
    dropout: Share = 0.3
    """On the embeddings, and before the last layer."""


class Gan(StrictModel):
    """A generative adversarial network of convolutions, for images whose sides are multiples of 2 to the stages."""

    noise: Positive = 64
    """Random numbers that an image is made of."""
    channels: Annotated[list[Positive], Field(min_length=1)] = [128, 64]
    """Of each stage, from the smallest picture to the largest."""
    discriminator_rate: Annotated[float, Field(gt=0)] = 1.0
    """The discriminator's learning rate, as a multiple of `train.learning_rate` (Heusel et al. 2017)."""
    average: Share = 0.999
    """How slowly the published generator, a moving average, follows the one that learns, once training is under way."""


class Decoder(StrictModel):
    """A decoder as Llama is, with a tokenizer learned from the training split."""

    layers: Positive = 6
    hidden: Positive = 256
    """Numbers of a token between layers; a multiple of twice `heads`."""
    heads: Positive = 8
    feed_forward: Positive | None = None
    """Units inside each layer; four times `hidden` where left out."""
    dropout: Share = 0.0
    """On attention."""

    @model_validator(mode="after")
    def _heads_share(self) -> Decoder:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"model.decoder.hidden: {self.hidden} given; a multiple of {2 * self.heads}, twice heads, is needed"
            )
        return self


ARCHITECTURES = {
    "mlp": ("tabular-classification", "image-classification"),
    "residual_cnn": ("image-classification",),
    "lstm": ("text-classification",),
    "gan": ("image-generation",),
    "decoder": ("causal-lm",),
}
"""The tasks that each is for."""


class ModelConfig(StrictModel):
    """Where the base model comes from, or what is built in its place: exactly one of the keys."""

    source: str | None = None
    """`pkg:package/folder`, a path, `hf:org/name`, `s3://bucket/prefix` or `models:/name@alias`."""
    mlp: Mlp | None = None
    """Fully connected layers, for tables and small images."""
    residual_cnn: ResidualCnn | None = None
    """A residual network, for images."""
    lstm: Lstm | None = None
    """An LSTM, for texts."""
    gan: Gan | None = None
    """A generator and a discriminator, for new images."""
    decoder: Decoder | None = None
    """A language model, for plain texts."""

    @model_validator(mode="after")
    def _is_one(self) -> ModelConfig:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"model.{name}" for name in given) or "nothing"
            raise ValueError(f"model: {found} given; exactly one of {', '.join(type(self).model_fields)} is allowed")
        return self

    @property
    def architecture(self) -> str | None:
        """The name of what is built; None for a base model that exists."""
        return next((name for name in ARCHITECTURES if getattr(self, name) is not None), None)

    @property
    def network(self) -> str | None:
        """The name of what is built, where that is no Hugging Face model."""
        return None if self.decoder else self.architecture

    @property
    def origin(self) -> str:
        """What the model is made from, in a word."""
        return self.source or str(self.architecture)

    def check_task(self, task: str) -> None:
        """Raises ValueError where `task` has no use for the model."""
        name = self.architecture
        fitting = [key for key, tasks in ARCHITECTURES.items() if task in tasks]
        allowed = [f"model.{key}" for key in (*fitting, *(["source"] if task in PRETRAINED else []))]
        if f"model.{name or 'source'}" not in allowed:
            raise ValueError(f"model.{name or 'source'}: given, and task is {task}; {' or '.join(allowed)} is needed")


PRETRAINED = ("text-classification", "causal-lm")
"""Tasks that begin with a base model that exists."""
