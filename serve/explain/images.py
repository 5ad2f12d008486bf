"""Explanations of images: occlusion (hide a part, watch the logit) and saliency (gradients of pixels)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from heliostat.infra.images import png
from heliostat.infra.registry.inputs import ImageInputs
from heliostat.infra.registry.programs import Program
from heliostat.serve.explain.answers import ImageExplanation
from heliostat.serve.explain.base import Explainer, Target
from heliostat.serve.explain.graphs import Run
from heliostat.serve.explain.heat_map import over

if TYPE_CHECKING:
    import numpy as np

CELLS = 16
"""Largest number of grid cells per side. The occlusion window is two cells wide and high, and moves by one."""
AT_ONCE = 16
"""Images per forward pass."""


class ImageExplainer(Explainer["np.ndarray"]):
    """Explains model inputs: uint8 [height, width, channels]. Hidden parts get the mean colour."""

    methods = ("occlusion", "saliency")

    def __init__(
        self, program: Program, inputs: ImageInputs, labels: Sequence[str], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(labels)
        self.program = program
        self.device = torch.device(device)
        self.mean = (torch.tensor(inputs.mean, device=self.device) * 255).expand(1, *inputs.shape)
        height, width, channels = inputs.shape
        self.cell = (-(-height // CELLS), -(-width // CELLS))
        self.window = (min(2 * self.cell[0], height), min(2 * self.cell[1], width), channels)

    def logits(self, item: np.ndarray) -> torch.Tensor:
        """Logits of all labels: float [1, labels]."""
        return self.program(pixels=torch.from_numpy(item[None]).to(self.device))

    def explained(self, item: np.ndarray, target: Target) -> ImageExplanation:
        """The attribution of each cell of the image."""
        method = self.occlusion if target.method == "occlusion" else self.saliency
        found, passes = method(torch.from_numpy(item[None]).to(self.device).float(), target.at)
        grid = in_cells(found.cpu(), self.cell)
        return ImageExplanation(
            method=target.method,
            label=target.label,
            score=target.score,
            predicted=target.predicted,
            passes=1 + passes,
            grid=grid.tolist(),
            cell_height=self.cell[0],
            cell_width=self.cell[1],
            heat_map=base64.b64encode(png(over(item, grid.numpy(), self.cell))).decode(),
        )

    def occlusion(self, pixels: torch.Tensor, at: int) -> tuple[torch.Tensor, int]:
        """How much the logit falls when a pixel is hidden (Zeiler and Fergus 2014), averaged over its windows.

        `pixels` float [1, height, width, channels]; returns float [height, width] and the passes it took.
        """
        from captum.attr import Occlusion

        passes = 0

        def logit(images: torch.Tensor) -> torch.Tensor:
            nonlocal passes
            passes += len(images)
            with torch.no_grad():
                found: torch.Tensor = self.program(pixels=images.round().to(torch.uint8))[:, at]
            return found

        found: torch.Tensor = Occlusion(logit).attribute(
            pixels, self.window, (*self.cell, self.window[2]), self.mean, perturbations_per_eval=AT_ONCE
        )
        return found[0, :, :, 0], passes

    def saliency(self, pixels: torch.Tensor, at: int) -> tuple[torch.Tensor, int]:
        """Absolute gradient of the logit for each pixel, the largest of its channels (Simonyan et al. 2013).

        In logits per full range from black to white; shapes as in `occlusion`.
        """
        from captum.attr import Saliency

        def logit(images: torch.Tensor) -> torch.Tensor:
            return Run(self.program, {}).outputs({"pixels": images})[:, at]

        found: torch.Tensor = Saliency(logit).attribute(pixels.requires_grad_())
        return found[0].amax(dim=-1) * 255, 2


def in_cells(found: torch.Tensor, cell: tuple[int, int]) -> torch.Tensor:
    """The means of `found` [height, width] over cells: [rows, columns]; cells at the end may be smaller."""
    means: torch.Tensor = torch.nn.functional.avg_pool2d(found[None], cell, cell, ceil_mode=True)[0]
    return means
