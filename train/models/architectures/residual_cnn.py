"""A residual network for small images (He et al. 2016), with the layout of D. Page (2018) for short training.

A layer is a convolution and group normalisation (Wu and He 2018) instead of batch normalisation: the output for an
image does not depend on the other images, and so neither on the micro-batch size nor on the world size. Standardised
weights (Qiao et al. 2019, https://arxiv.org/abs/1903.10520) make it train as fast. The layout is described in
https://myrtle.ai/how-to-train-your-resnet.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from heliostat.infra.registry.inputs import ImageInputs
from heliostat.train.models.architectures import stages
from heliostat.train.models.architectures.config import ResidualCnn
from heliostat.train.models.architectures.network import Network, Settings

GROUPS = 8
EPSILON = 1e-8
"""Avoids a division by zero for constant weights."""


class Convolution(nn.Conv2d):
    """A 3 x 3 convolution with weights standardised to mean 0 and equal variance per output channel."""

    standardises = True
    """False if the weights are already standardised."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[images, before, h, w] to [images, after, h, w]."""
        weight = standardised(self.weight).to(images.dtype) if self.standardises else self.weight
        return functional.conv2d(images, weight, padding=1)


class Layer(nn.Module):
    """Convolution, normalisation, ReLU; optionally halves height and width after the convolution."""

    def __init__(self, before: int, after: int, halves: bool = False) -> None:
        super().__init__()
        self.convolution = Convolution(before, after)
        self.norm = norm(after)
        self.halves = halves

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[images, before, h, w] to [images, after, h, w], or h / 2 and w / 2, rounded up."""
        found = self.convolution(images)
        if self.halves:
            found = functional.max_pool2d(found, 2, ceil_mode=True)
        return functional.relu(self.norm(found))


class Block(nn.Module):
    """A residual block of two layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(channels, channels), Layer(channels, channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[images, channels, h, w], the same after it."""
        found: torch.Tensor = images + self.layers(images)
        return found


class ResidualNetwork(Network):
    """A first layer, stages that each halve height and width, global max pooling, and an output per class."""

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__(settings, outputs)
        config, inputs = settings.model.residual_cnn, settings.inputs
        assert isinstance(config, ResidualCnn)
        assert isinstance(inputs, ImageInputs)
        self.pixels = stages.Pixels(inputs, settings.augment)
        width = config.channels[0]
        # Not standardised: weights with mean 0 cannot detect brightness.
        first = nn.Conv2d(inputs.shape[2], width, 3, padding=1, bias=False)
        layers: list[nn.Module] = [first, norm(width), nn.ReLU()]
        for channels in config.channels[1:]:
            layers += [Layer(width, channels, halves=True), *(Block(channels) for _ in range(config.blocks))]
            width = channels
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(width, outputs)

    def published(self) -> nn.Module:
        """A copy that does not standardise its weights in each pass."""
        network = self.fresh()
        for layer in network.modules():
            if isinstance(layer, Convolution):
                layer.standardises = False
        return network

    def published_value(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """The standardised weights of convolutions; other values unchanged."""
        layer = self.get_submodule(name.rpartition(".")[0])
        return standardised(value) if isinstance(layer, Convolution) else value

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [images, outputs]."""
        images = self.pixels(pixels, self.dtype).contiguous(memory_format=torch.channels_last)
        found = self.layers(images).amax(dim=(2, 3))
        logits: torch.Tensor = self.last(self.dropout(found))
        return logits


def standardised(weight: torch.Tensor) -> torch.Tensor:
    """`weight` [after, before, 3, 3] in float32, with mean 0 and He et al.'s (2015) variance per output channel."""
    rows = weight.float().flatten(1)
    inputs = rows.shape[1]
    found = functional.layer_norm(rows, (inputs,), eps=EPSILON) * math.sqrt(2 / inputs)
    return found.view_as(weight)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with eight groups, or the largest smaller number that divides `channels`."""
    groups = next(groups for groups in range(min(GROUPS, channels), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


NETWORK = ResidualNetwork
