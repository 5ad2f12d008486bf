"""Fully connected layers with ReLU, for table rows or the pixels of an image."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import nn

from heliostat.infra.registry.inputs import ImageInputs, TableInputs
from heliostat.train.models.architectures import stages
from heliostat.train.models.architectures.config import Mlp
from heliostat.train.models.architectures.network import Network, Settings


class MultilayerPerceptron(Network):
    """Hidden layers and an output per class."""

    records_at_once = {"cpu": 512, "cuda": 8192}

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__(settings, outputs)
        config, inputs = settings.model.mlp, settings.inputs
        assert isinstance(config, Mlp)
        assert isinstance(inputs, TableInputs | ImageInputs)
        self.pixels = stages.Pixels(inputs, settings.augment) if isinstance(inputs, ImageInputs) else None
        sizes = [prod(inputs.shape) if isinstance(inputs, ImageInputs) else inputs.width, *config.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

    def forward(self, features: torch.Tensor | None = None, pixels: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [records, outputs] of rows (`features`) or images (`pixels`)."""
        found = features if self.pixels is None else self.pixels(pixels, self.dtype).flatten(1)
        assert found is not None
        logits: torch.Tensor = self.layers(found.to(self.dtype))
        return logits


NETWORK = MultilayerPerceptron
