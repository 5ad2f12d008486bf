"""The `model` section of a spec: an existing base model, or one that is built and trained from scratch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from heliostat.infra.config.strict import StrictModel

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Mlp(StrictModel):
    """Fully connected layers with ReLU between them, for table rows or the pixels of an image."""

    hidden: Annotated[list[Positive], Field(min_length=1)] = [128, 64]
    """Units of each hidden layer."""
    dropout: Share = 0.0
    """Dropout after each hidden layer."""


class ResidualCnn(StrictModel):
    """A residual network for small images: a first layer, then stages that each halve height and width."""

    channels: Annotated[list[Positive], Field(min_length=1)] = [64, 128, 256]
    """Channels of the first layer, then of each stage."""
    blocks: Annotated[int, Field(ge=0)] = 1
    """Residual blocks (He et al. 2016) per stage, after the layer that halves height and width."""
    dropout: Share = 0.0
    """Dropout before the last layer."""


class Lstm(StrictModel):
    """Embeddings and an LSTM over the words of a text, with a tokenizer trained on the training split."""

    embedding: Positive = 128
    """Size of a word's embedding."""
    hidden: Positive = 128
    """Units of the LSTM."""
    dropout: Share = 0.3
    """Dropout on the embeddings, and before the last layer."""


class Gan(StrictModel):
    """A convolutional GAN, for images whose sides are multiples of 2 to the power of the number of stages."""

    noise: Positive = 64
    """Size of the noise vector from which an image is generated."""
    channels: Annotated[list[Positive], Field(min_length=1)] = [128, 64]
    """Channels of each stage, from the lowest to the highest resolution."""
    discriminator_rate: Annotated[float, Field(gt=0)] = 1.0
    """The discriminator's learning rate, as a multiple of `train.learning_rate` (Heusel et al. 2017)."""
    average: Share = 0.999
    """Decay of the moving average of the generator's weights, which is what is published, after a warm-up."""


class Decoder(StrictModel):
    """A Llama-style decoder, with a tokenizer trained on the training split."""

    layers: Positive = 6
    hidden: Positive = 256
    """Size of a token's hidden state; a multiple of twice `heads`."""
    heads: Positive = 8
    feed_forward: Positive | None = None
    """Hidden units of each layer's feed-forward part; four times `hidden` if omitted."""
    dropout: Share = 0.0
    """Dropout on attention."""

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
"""The tasks that each architecture supports."""


class ModelConfig(StrictModel):
    """The base model, or the architecture to build instead: exactly one of the keys."""

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
        """The name of the architecture to build; None for an existing base model."""
        return next((name for name in ARCHITECTURES if getattr(self, name) is not None), None)

    @property
    def network(self) -> str | None:
        """The name of the architecture, unless it is a Hugging Face model; None otherwise."""
        return None if self.decoder else self.architecture

    @property
    def origin(self) -> str:
        """The base model's source or the architecture's name."""
        return self.source or str(self.architecture)

    def check_task(self, task: str) -> None:
        """Raises ValueError if the model does not support `task`."""
        name = self.architecture
        fitting = [key for key, tasks in ARCHITECTURES.items() if task in tasks]
        allowed = [f"model.{key}" for key in (*fitting, *(["source"] if task in PRETRAINED else []))]
        if f"model.{name or 'source'}" not in allowed:
            raise ValueError(f"model.{name or 'source'}: given, and task is {task}; {' or '.join(allowed)} is needed")


PRETRAINED = ("text-classification", "causal-lm")
"""Tasks that can use an existing base model."""
