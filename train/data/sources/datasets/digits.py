"""Optical Recognition of Handwritten Digits, its test part: 1,797 digits of 8 x 8 grey pixels, as IDX files.

The shades from 0 to 16 are scaled to 0 to 255, so that the images look the same as image files in requests; labels are
0 to 9. The data come with scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heliostat.train.data.formats import idx
from heliostat.train.data.sources.datasets.dataset import Dataset

SHADES = 16


def make(_release: Path, folder: Path) -> None:
    """Writes digits-images-idx3-ubyte and digits-labels-idx1-ubyte into `folder`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    idx.write(folder, "digits", np.rint(bunch.images * 255 / SHADES), bunch.target)


DATASET = Dataset(make, sha256="4d37fd9012585d913e53404bea54edb8aec7eeadbe10a50da8dadc489ef16354")
