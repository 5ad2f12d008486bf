"""A residual network for small images (He et al. 2016, https://arxiv.org/abs/1603.05027, blocks as in figure 1 b).

Group normalisation (Wu and He 2018) in place of batch normalisation: what an image is turned into does not depend on
the images beside it, and so neither on the micro-batch nor on the number of workers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from heliostat.infra.inputs import ImageInputs
from heliostat.train.architectures import stages
from heliostat.train.architectures.config import ResidualCnn
from heliostat.train.architectures.network import Network, Settings

GROUPS = 8


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a way around them; the first may halve height and width."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(count) for count in (before, after))
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.around = nn.Conv2d(before, after, 1, stride, bias=False) if (before, stride) != (after, 1) else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[images, before, h, w] to [images, after, h / stride, w / stride]."""
        active = functional.relu(self.norms[0](images))
        around = images if self.around is None else self.around(active)
        found: torch.Tensor = around + self.second(functional.relu(self.norms[1](self.first(active))))
        return found


class ResidualNetwork(Network):
    """A convolution, stages of blocks, and an output for each class over the mean of all places."""

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__(settings, outputs)
        config, inputs = settings.model.residual_cnn, settings.inputs
        assert isinstance(config, ResidualCnn)
        assert isinstance(inputs, ImageInputs)
        self.pixels = stages.Pixels(inputs, settings.augment)
        width = config.channels[0]
        self.first = nn.Conv2d(inputs.shape[2], width, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for stage, channels in enumerate(config.channels):
            for index in range(config.blocks):
                blocks.append(Block(width, channels, 2 if stage and not index else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks, norm(width), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(width, outputs)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [images, outputs]."""
        images = self.pixels(pixels, self.dtype).contiguous(memory_format=torch.channels_last)
        found = self.blocks(self.first(images)).mean(dim=(2, 3))
        logits: torch.Tensor = self.last(self.dropout(found))
        return logits


def norm(channels: int) -> nn.GroupNorm:
    """In groups of equal size, eight where that divides the channels."""
    groups = next(groups for groups in range(min(GROUPS, channels), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


NETWORK = ResidualNetwork
