"""Image generation from noise."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from heliostat.infra.images import data_url, grid, png
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import NoiseInputs
from heliostat.train.data.config import DataConfig
from heliostat.train.data.rows import Rows
from heliostat.train.encoders.images import ImageEncoder
from heliostat.train.models.architectures.network import load_network
from heliostat.train.tasks.base import Batch, Example

DIRECTIONS = 128
"""Random directions onto which images are projected for the metric."""
SHOWN = 64


@dataclass(frozen=True)
class PictureEncoder(ImageEncoder):
    """Encodes images as `pixels`; a single class is allowed."""

    fewest_classes: ClassVar[int] = 1


class ImageGeneration:
    """Digits, faces, textures: a generator of images, of any or of a requested class."""

    name = "image-generation"
    auto_class = ""
    metric = "sliced_wasserstein"
    mode = "min"

    def encoder(self, data: DataConfig, folder: Path | None) -> PictureEncoder:
        """Encodes images, and their classes unless `data.columns.label` is null."""
        return PictureEncoder(labelled=data.columns.label is not None)

    def load_model(self, folder: Path, labels: tuple[str, ...], dropout: float | None) -> torch.nn.Module:
        """The network whose settings are in `folder`, or the published program if there is one."""
        return load_network(folder, len(labels))

    def collate(self, rows: Rows, indices: np.ndarray) -> Batch:
        """`pixels` [images, height, width, channels], `labels` [images] if there are classes, and `seeds` [images].

        A seed determines the noise from which evaluation generates an image.
        """
        pixels = torch.from_numpy(rows.matrix("pixels", indices))
        labels = {"labels": torch.from_numpy(rows.classes[indices])} if rows.labels else {}
        return {"pixels": pixels, **labels, "seeds": torch.from_numpy(indices.astype(np.int64))}

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The losses of discriminator and generator, summed over the images; see `architectures.gan`."""
        losses: torch.Tensor = model(pixels=batch["pixels"], labels=batch.get("labels"))
        return losses.float().sum()

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """Projections of each real and a generated image, and the latter's pixels: float32 [images, numbers]."""
        made = model(noise=noise(model, batch["seeds"]).to(batch["pixels"].device))
        pixels = made.cpu().reshape(len(made), -1).float().numpy()
        return np.concatenate([projected(batch["pixels"]), projected(made), pixels], axis=1)

    def metrics(self, outputs: np.ndarray, rows: Rows) -> dict[str, float]:
        """The sliced Wasserstein distance (Rabin et al. 2011) of real and generated images, for pixels from 0 to 1.

        Along each direction the projections are sorted, and the mean distance of those of equal rank is taken.
        """
        real, made = np.sort(outputs[:, :DIRECTIONS], axis=0), np.sort(outputs[:, DIRECTIONS : 2 * DIRECTIONS], axis=0)
        return {"sliced_wasserstein": float(np.abs(real - made).mean())}

    def confusion(self, outputs: np.ndarray, rows: Rows) -> None:
        """None: there are no classes."""
        return

    def reliability(self, outputs: np.ndarray, rows: Rows) -> None:
        """None: there are no classes."""
        return

    def worst(self, outputs: np.ndarray, rows: Rows, folder: Path, count: int) -> list[Example]:
        """There is no worst record: returns one grid of SHOWN generated images."""
        made = outputs[:SHOWN, 2 * DIRECTIONS :].astype(np.uint8).reshape(-1, *rows.shape)
        return [{f"{len(made)} images, of the seeds from 0 on": data_url(grid(list(made)))}]

    def probe(self, model: Any, folder: Path, rows: Rows, max_length: int) -> dict[str, Any]:
        """The image generated from seed 0."""
        with torch.inference_mode():
            made = model(noise=noise(model, torch.tensor([0])))
        return {"input": {"seed": 0}, "output": {"image": base64.b64encode(png(made[0].numpy())).decode()}}


def noise(model: Any, seeds: torch.Tensor) -> torch.Tensor:
    """The noise for a network, the engine around it or a program: float32 [seeds, size]."""
    inner = getattr(model, "module", model)
    size = inner.shapes["noise"][1] if isinstance(inner, programs.Program) else inner.inputs.size
    return torch.cat([NoiseInputs(size=size).noise(seed, 1) for seed in seeds.tolist()])


def projected(images: torch.Tensor) -> np.ndarray:
    """Projections of uint8 [images, ...] onto fixed random unit vectors: float32 [images, DIRECTIONS]."""
    flat = images.reshape(len(images), -1).float() / 255
    directions = torch.randn(flat.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(0))
    found = flat @ (directions / directions.norm(dim=0)).to(flat.device)
    return found.cpu().numpy()


TASK = ImageGeneration()
