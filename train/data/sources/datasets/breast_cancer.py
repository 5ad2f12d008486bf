"""Breast Cancer Wisconsin (Diagnostic): 569 tumours with 30 measurements each, as one CSV file.

The columns have scikit-learn's names (`mean radius` to `worst fractal dimension`); `diagnosis` is `malignant` (212) or
`benign` (357). The data come with scikit-learn.
"""

from __future__ import annotations

import csv
from pathlib import Path

from heliostat.train.data.sources.datasets.dataset import Dataset


def make(_release: Path, folder: Path) -> None:
    """Writes breast-cancer.csv into `folder`."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    with (folder / "breast-cancer.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*bunch.feature_names.tolist(), "diagnosis"])
        for values, target in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True):
            rows.writerow([*values, str(bunch.target_names[target])])


DATASET = Dataset(make, sha256="4bdc2bc0a06be95548d7966d34c24199cbc8a516bc68bc3c06412c7b9ef087d2")
