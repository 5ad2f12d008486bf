"""Circles, crosses and squares with random colours, positions and noise: one folder per class."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.starters.starter import Starter

if TYPE_CHECKING:
    import numpy as np

SIDE = 24
"""Side of an image in pixels."""
EACH = 120
"""Images per class."""
NOISE = 24
"""Largest noise on a channel of a pixel, of 255."""
Shape = Callable[["np.ndarray", "np.ndarray", float], "np.ndarray"]
"""Which pixels a shape covers, from their distances right of and below its centre, and its radius."""


def make(folder: Path) -> None:
    """Writes `shapes/CLASS/NUMBER.png`."""
    from heliostat.infra.images import png

    draw = random.Random(0)
    for name, shape in SHAPES.items():
        (folder / "shapes" / name).mkdir(parents=True)
        for number in range(EACH):
            (folder / "shapes" / name / f"{number:03}.png").write_bytes(png(picture(draw, shape)))


def picture(draw: random.Random, shape: Shape) -> np.ndarray:
    """One image, uint8 [SIDE, SIDE, 3]: the shape, brighter than the background."""
    import numpy as np

    radius = draw.uniform(5, 9)
    middle = [draw.uniform(radius, SIDE - radius) for _ in range(2)]
    down, right = (axis - at for axis, at in zip(np.mgrid[:SIDE, :SIDE], middle, strict=True))
    pixels = np.where(shape(right, down, radius)[:, :, None], colour(draw, 140, 230), colour(draw, 20, 90))
    noise = [draw.randint(-NOISE, NOISE) for _ in range(pixels.size)]
    return (pixels + np.reshape(noise, pixels.shape)).clip(0, 255).astype(np.uint8)


def colour(draw: random.Random, darkest: int, brightest: int) -> list[int]:
    """Random red, green and blue."""
    return [draw.randint(darkest, brightest) for _ in range(3)]


def circle(right: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Pixels within the radius."""
    return right**2 + down**2 <= radius**2


def cross(right: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Two crossed bars, a third as wide as they are long."""
    bars = (abs(right) <= radius / 3) | (abs(down) <= radius / 3)
    return bars & square(right, down, radius)


def square(right: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Pixels within the radius both horizontally and vertically."""
    return (abs(right) <= radius) & (abs(down) <= radius)


SHAPES: dict[str, Shape] = {"circle": circle, "cross": cross, "square": square}

EXAMPLE = "data/shapes/cross/000.png"

STARTER = Starter(
    about="a folder of pictures for each class",
    make=make,
    call=f"-F image=@{EXAMPLE}",
    own="`data.source` (a folder with one sub-folder of pictures for each class) and, where their sizes differ, "
    "`data.images`",
    explain=EXAMPLE,
)
