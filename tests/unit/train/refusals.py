"""What is said of data that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.infra.errors import DataError, ModelError
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.data.formats.source import find_source, read
from heliostat.train.data.sources.resolve import resolve

NEEDED = {"image": "data.columns.image", "label": "data.columns.label"}


def failure(source: str, storage: StorageConfig, key: str = "data.source") -> str:
    with pytest.raises(DataError if key.startswith("data") else ModelError) as caught:
        resolve(source, storage, key)
    message = str(caught.value)
    assert message.startswith(f"{key}: {source!r} given; ")
    assert "\n" not in message
    return message.removeprefix(f"{key}: {source!r} given; ")


def unread(file: Path, format_: str) -> str:
    """Of a file of images that cannot be read."""
    with pytest.raises(DataError) as caught:
        list(read(file, format_, NEEDED))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(file.parent), "FOLDER")


def unfound(path: Path, format_: str) -> str:
    """Of a place where there are no files of the format."""
    with pytest.raises(DataError) as caught:
        find_source(path, format_)
    return str(caught.value).replace(str(path), "PATH")
