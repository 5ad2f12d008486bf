"""Heat map of an image's attributions: the image in grey, green for the label, red against it."""

from __future__ import annotations

import numpy as np

FOR = np.array([26, 160, 72], dtype=np.float32)
AGAINST = np.array([214, 48, 57], dtype=np.float32)
STRONGEST = 0.75
"""Opacity of the colour in the cell with the largest attribution; the rest is the image."""


def over(image: np.ndarray, grid: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """`image`, uint8 [height, width, channels], with the colours of `grid` [rows, columns] over it, as RGB."""
    height, width = image.shape[:2]
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    values = np.kron(shares(grid), np.ones(cell))[:height, :width, None]
    strength = np.abs(values) * STRONGEST
    colours = np.where(values > 0, FOR, AGAINST)
    found: np.ndarray = (grey * (1 - strength) + colours * strength).round().astype(np.uint8)
    return found


def shares(values: np.ndarray) -> np.ndarray:
    """Values divided by the largest absolute value; zeros if all are zero."""
    largest = np.abs(values).max(initial=0.0)
    found: np.ndarray = values / largest if largest else np.zeros_like(values)
    return found
