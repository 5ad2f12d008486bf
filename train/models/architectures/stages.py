"""Input layers of networks: pixels, with augmentation, and example inputs."""

from __future__ import annotations

import torch
from torch import nn

from heliostat.infra.registry.inputs import ImageInputs, Inputs, TableInputs, TextInputs
from heliostat.train.data.config import Augment


class Pixels(nn.Module):
    """uint8 [images, height, width, channels] to standardised numbers [images, channels, height, width].

    In training, each image is randomly changed as `augment` says.
    """

    def __init__(self, inputs: ImageInputs, augment: Augment) -> None:
        super().__init__()
        self.augment = augment
        self.mean = nn.Buffer(torch.tensor(inputs.mean).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(inputs.std).view(-1, 1, 1))

    def forward(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The images in `dtype`, standardised per channel."""
        found = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean.float()) / self.std.float()
        return (augmented(found, self.augment) if self.training else found).to(dtype)


def augmented(images: torch.Tensor, augment: Augment) -> torch.Tensor:
    """The images [images, channels, height, width], each randomly shifted, mirrored and erased; zero outside."""
    count, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(count, height)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if augment.flip:
        columns = torch.where(_draw(images, 2).bool(), width - 1 - columns, columns)
    if augment.crop:
        rows = rows + _draw(images, 2 * augment.crop + 1) - augment.crop
        columns = columns + _draw(images, 2 * augment.crop + 1) - augment.crop
    seen = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None]
    if augment.erase:
        seen = seen & ~(_band(images, height, augment.erase)[:, :, None] & _band(images, width, augment.erase)[:, None])
    record = torch.arange(count, device=images.device)[:, None, None]
    moved = images[record, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
    return (moved * seen[..., None]).permute(0, 3, 1, 2)


def _draw(images: torch.Tensor, below: int) -> torch.Tensor:
    """A random integer below `below` for each image: int64 [images, 1]."""
    return torch.randint(below, (len(images), 1), device=images.device)


def _inside(places: torch.Tensor, size: int) -> torch.Tensor:
    return (places >= 0) & (places < size)


def _band(images: torch.Tensor, size: int, width: int) -> torch.Tensor:
    """`width` neighbours among `size` positions, around a random centre: bool [images, size]."""
    start = _draw(images, size) - width // 2
    places = torch.arange(size, device=images.device)
    return (places >= start) & (places < start + width)


def example(inputs: Inputs, records: int) -> dict[str, torch.Tensor]:
    """Tensors by name, with the shapes described by `inputs`, on the CPU."""
    if isinstance(inputs, TableInputs):
        return {"features": torch.zeros(records, inputs.width)}
    if isinstance(inputs, ImageInputs):
        return {"pixels": torch.zeros(records, *inputs.shape, dtype=torch.uint8)}
    if isinstance(inputs, TextInputs):
        return inputs.padded([[1] * inputs.length] * records)
    return {"noise": inputs.noise(0, records)}
