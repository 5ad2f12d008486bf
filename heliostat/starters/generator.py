"""Moons in a grey night sky, of random size, position and phase."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.starters.starter import Starter

if TYPE_CHECKING:
    import numpy as np

SIDE = 16
"""Side of an image in pixels."""
COUNT = 640
PHASES = {"waxing": -1, "waning": 1}
"""The dark side, seen from the north: -1 is left."""


def make(folder: Path) -> None:
    """Writes `pictures/waxing/NUMBER.png` and `pictures/waning/NUMBER.png`."""
    from heliostat.infra.images import png

    draw = random.Random(0)
    for phase, side in PHASES.items():
        (folder / "pictures" / phase).mkdir(parents=True)
        for number in range(COUNT // len(PHASES)):
            (folder / "pictures" / phase / f"{number:03}.png").write_bytes(png(moon(draw, side)))


def moon(draw: random.Random, side: int) -> np.ndarray:
    """One image, uint8 [SIDE, SIDE, 1]: a disk, without the part that a second disk, shifted to `side`, covers."""
    import numpy as np

    radius = draw.uniform(4, 6)
    row, column = (draw.uniform(radius, SIDE - radius) for _ in range(2))
    away = side * draw.uniform(0.5, 1.2) * radius
    down, right = np.mgrid[:SIDE, :SIDE]
    lit = edge(np.hypot(down - row, right - column) - radius)
    dark = edge(np.hypot(down - row, right - column - away) - radius)
    brightness = draw.randint(180, 255)
    return (brightness * lit * (1 - dark))[:, :, None].astype(np.uint8)


def edge(outside: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, with a transition one pixel wide; `outside` is the distance from the border in pixels."""
    return (0.5 - outside).clip(0, 1)


STARTER = Starter(
    about="pictures, to make new ones like them",
    make=make,
    call="-H 'Content-Type: application/json' -H 'Accept: image/png' -o moons.png "
    """-d '{"count": 16, "label": "waning"}'""",
    own="`data.source` (a folder with a sub-folder of pictures for each class) and `data.images` (their size, each "
    "side a multiple of two to the number of `model.gan.channels`)",
)
