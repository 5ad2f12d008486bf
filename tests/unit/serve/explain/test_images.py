"""Explanations of images: a model that looks at one corner is found out."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from heliostat.infra.images import decode
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import ImageInputs
from heliostat.serve.explain.answers import ImageExplanation
from heliostat.serve.explain.heat_map import over
from heliostat.serve.explain.images import ImageExplainer

SIZE = 32
INPUTS = ImageInputs(height=SIZE, width=SIZE, mode="rgb", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Corner(torch.nn.Module):
    """The brightness of the last 8 rows and columns speaks for the first label and against the second."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        numbers = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        bright = numbers[:, :, -8:, -8:].mean(dim=(1, 2, 3))
        return torch.stack([bright, -bright], dim=1)


def explain(method: str, label: str, folder: Path, image: np.ndarray) -> ImageExplanation:
    programs.save(Corner(), {"pixels": torch.zeros(2, *INPUTS.shape, dtype=torch.uint8)}, folder)
    found = ImageExplainer(programs.load(folder), INPUTS, ("bright", "dark")).explain(image, label, method)
    assert isinstance(found, ImageExplanation)
    return found


@pytest.fixture
def image() -> np.ndarray:
    """Bright everywhere."""
    return np.full(INPUTS.shape, 240, dtype=np.uint8)


@pytest.mark.parametrize("method", ["occlusion", "saliency"])
def test_the_corner_that_counts_is_found(method: str, image: np.ndarray, tmp_path: Path) -> None:
    found = explain(method, "bright", tmp_path, image)
    grid = np.array(found.grid)
    assert grid.shape == (16, 16)
    assert (found.cell_height, found.cell_width) == (2, 2)
    assert (grid[12:, 12:] > 0).all()
    outside = grid.copy()
    outside[11:, 11:] = 0  # what is hidden is two cells wide, so the nearest cell beside the corner has a share
    assert not outside.any()


def test_what_speaks_for_one_label_speaks_against_the_other(image: np.ndarray, tmp_path: Path) -> None:
    grid = np.array(explain("occlusion", "dark", tmp_path, image).grid)
    assert grid.min() < 0
    assert grid.max() <= 0


def test_where_the_image_is_the_mean_nothing_counts(tmp_path: Path) -> None:
    image = np.full(INPUTS.shape, 128, dtype=np.uint8)  # what hides it is 127.5, rounded to an even number
    assert not np.array(explain("occlusion", "bright", tmp_path, image).grid).any()


def test_the_heat_map_is_a_picture_of_the_same_size(image: np.ndarray, tmp_path: Path) -> None:
    found = explain("occlusion", "bright", tmp_path, image)
    picture = decode(base64.b64decode(found.heat_map), "own", "heat map").astype(int)
    assert picture.shape == INPUTS.shape
    assert (picture[0, 0] == 240).all()
    assert picture[-1, -1, 1] > picture[-1, -1, 0]


def test_colours_are_green_for_and_red_against() -> None:
    image = np.zeros((4, 6, 1), dtype=np.uint8)
    picture = over(image, np.array([[1.0, 0.0], [-0.5, 0.0]]), (3, 3)).astype(int)
    assert picture.shape == (4, 6, 3)
    assert picture[0, 0, 1] > picture[0, 0, 0]
    assert picture[3, 0, 0] > picture[3, 0, 1]
    assert not picture[:, 3:].any()


def test_small_images_have_a_cell_for_each_pixel(tmp_path: Path) -> None:
    inputs = ImageInputs(height=3, width=5, mode="grey", mean=(0.0,), std=(1.0,))
    linear = torch.nn.Linear(15, 2)
    weights = linear.weight.detach()[0].abs().reshape(3, 5)

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.linear(pixels.flatten(1).float())
            return found

    programs.save(Pixels(), {"pixels": torch.zeros(2, *inputs.shape, dtype=torch.uint8)}, tmp_path)
    explainer = ImageExplainer(programs.load(tmp_path), inputs, ("a", "b"))
    image = np.arange(15, dtype=np.uint8).reshape(3, 5, 1)
    hidden, reacts = (explainer.explain(image, "a", method) for method in explainer.methods)
    assert isinstance(hidden, ImageExplanation)
    assert isinstance(reacts, ImageExplanation)
    assert np.array(hidden.grid).shape == np.array(reacts.grid).shape == (3, 5)
    assert np.array(reacts.grid) == pytest.approx(weights.numpy() * 255, rel=1e-4)
