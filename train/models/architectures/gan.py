"""A generative adversarial network (Goodfellow et al. 2014): a generator trained to fool a discriminator.

Both are trained simultaneously, each with the gradient of its own loss (simultaneous gradient descent, Mescheder et al.
2017): the hinge loss (Lim and Ye 2017) with spectral normalisation of the discriminator (Miyato et al. 2018,
https://arxiv.org/abs/1802.05957). AdamW keeps state per parameter, so the two parameter groups, each with its own
learning rate, behave like two optimizers; `train.max_grad_norm` clips the gradients of both together. The moving
average of the generator is published.

If the data have classes, both are conditioned on the class of an image (Mirza and Osindero 2014): the generator by its
noise, and the discriminator by selecting one of its outputs, one per class (the projection of Miyato and Koyama 2018,
https://arxiv.org/abs/1802.05637).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from heliostat.infra.registry.inputs import ImageInputs, NoiseInputs
from heliostat.train.models.architectures.config import Gan
from heliostat.train.models.architectures.network import Network, Settings, counted
from heliostat.train.models.architectures.residual_cnn import norm

LEAK = 0.2
"""Slope of a leaky ReLU below zero (Radford et al. 2015)."""


class Generator(nn.Module):
    """Noise and classes to images in [-1, 1] [images, channels, height, width]; each stage doubles height and width."""

    def __init__(self, config: Gan, inputs: ImageInputs, classes: int) -> None:
        super().__init__()
        self.classes = classes
        height, width, channels = inputs.shape
        scale = 2 ** len(config.channels)
        self.start = (config.channels[0], height // scale, width // scale)
        self.first = nn.Linear(classes + config.noise, self.start[0] * self.start[1] * self.start[2])
        stages: list[nn.Module] = []
        for before, after in zip(config.channels, [*config.channels[1:], config.channels[-1]], strict=True):
            stages += [norm(before), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        last = config.channels[-1]
        self.stages = nn.Sequential(*stages, norm(last), nn.ReLU(), nn.Conv2d(last, channels, 3, padding=1), nn.Tanh())

    def forward(self, noise: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Generates images from noise [images, size] and classes, int64 [images]."""
        one_hot = functional.one_hot(classes, self.classes).to(noise.dtype)
        first = self.first(torch.cat([one_hot, noise], dim=1))
        images: torch.Tensor = self.stages(first.view(-1, *self.start))
        return images


class Discriminator(nn.Module):
    """Images and their classes to one score each, high for images that look real: float [images]."""

    def __init__(self, config: Gan, inputs: ImageInputs, classes: int) -> None:
        super().__init__()
        height, width, channels = inputs.shape
        scale = 2 ** len(config.channels)
        stages: list[nn.Module] = []
        before = channels
        for after in reversed(config.channels):
            stages += [
                spectral_norm(nn.Conv2d(before, after, 3, padding=1)),
                nn.LeakyReLU(LEAK),
                spectral_norm(nn.Conv2d(after, after, 4, stride=2, padding=1)),
                nn.LeakyReLU(LEAK),
            ]
            before = after
        size = before * (height // scale) * (width // scale)
        self.stages = nn.Sequential(*stages, nn.Flatten(), spectral_norm(nn.Linear(size, classes)))

    def forward(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Scores each image as one of its class, int64 [images]."""
        found: torch.Tensor = self.stages(images).gather(1, classes[:, None]).squeeze(1)
        return found


class Images(nn.Module):
    """The published generator, noise to images: uint8 [images, height, width, channels]."""

    def __init__(self, average: nn.Module, inputs: NoiseInputs) -> None:
        super().__init__()
        self.average = average
        self.inputs = inputs

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Images from `noise` [images, size], which includes their classes."""
        found = self.average(noise[:, self.inputs.classes :], self.inputs.classes_of(noise))
        images = (found.float() + 1) * 127.5
        return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class AdversarialNetwork(Network):
    """Losses of both networks for `pixels`, images for `noise`. `outputs` is the number of classes, 0 if none."""

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__(settings, outputs)
        config, inputs = settings.model.gan, settings.inputs
        assert isinstance(config, Gan)
        assert isinstance(inputs, ImageInputs)
        self.config = config
        self.generator = Generator(config, inputs, self.inputs.classes)
        self.discriminator = Discriminator(config, inputs, self.inputs.classes)
        self.average = with_buffers(deepcopy(self.generator))
        self.moves = nn.Buffer(torch.zeros((), dtype=torch.int64))
        """Updates of the average: one per step, however many micro-batches the step had."""
        self.is_behind = nn.Buffer(torch.zeros((), dtype=torch.bool))
        """Whether a step has been made since the last update."""

    @property
    def inputs(self) -> NoiseInputs:
        """The inputs of the published generator."""
        classes = max(self.outputs, 1)
        return NoiseInputs(size=classes + self.config.noise, classes=classes)

    def published(self) -> Images:
        """The moving average of the generator, without the rest of the network."""
        return Images(self.average, self.inputs)

    def parameter_groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """The generator's and the discriminator's parameters, with the learning rate factor of each group."""
        return [
            (1.0, list(self.generator.parameters())),
            (self.config.discriminator_rate, list(self.discriminator.parameters())),
        ]

    def forward(
        self,
        pixels: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Losses [images, 2] of discriminator and generator for `pixels` with `labels`, or images from `noise`.

        Images are uint8 [images, height, width, channels]; labels are int64 [images].
        """
        if self.is_behind:
            self._move_average()
        if noise is not None:
            return self.published()(noise)
        assert pixels is not None
        real = (pixels.permute(0, 3, 1, 2).to(self.dtype) / 127.5) - 1
        classes = torch.zeros(len(real), dtype=torch.int64, device=real.device) if labels is None else labels
        noise = torch.randn(len(real), self.config.noise, dtype=self.dtype, device=real.device)
        made = self.generator(noise, classes)
        judged = [self.discriminator(images, classes) for images in (real, made.detach())]
        caught = functional.relu(1 - judged[0]) + functional.relu(1 + judged[1])
        fixed = {name: one.detach() for name, one in self.discriminator.named_parameters()}
        deceived = -functional_call(self.discriminator, fixed, (made, classes))
        return torch.stack([caught, deceived], dim=1)

    @torch.no_grad()
    def _move_average(self) -> None:
        """Updates the average; fast at first, to forget the initial weights (Polyak average with warm-up)."""
        rest = (9 / (self.moves + 10)).clamp(min=1 - self.config.average)
        self.moves.add_(1)
        self.is_behind.fill_(False)
        means = dict(self.average.named_buffers())
        for name, now in self.generator.named_parameters():
            means[name].lerp_(now, rest)

    def stepped(self) -> None:
        """Marks the average for an update in the next pass, when the new weights are on all ranks."""
        self.is_behind.fill_(True)

    def forward_flops(self) -> float:
        """One generator and three discriminator passes: on real images, and on generated ones for each loss."""
        fresh = AdversarialNetwork(self.settings, self.outputs)
        noise, classes = torch.zeros(1, self.config.noise), torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            images = fresh.generator(noise, classes)
        return counted(fresh.generator, noise, classes) + 3 * counted(fresh.discriminator, images, classes)


def with_buffers(module: nn.Module) -> nn.Module:
    """Replaces the parameters of `module` by buffers, which are checkpointed but not optimized."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module


NETWORK = AdversarialNetwork
