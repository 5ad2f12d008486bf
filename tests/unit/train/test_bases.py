"""What a run begins with, where it is built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.infra.errors import DataError
from heliostat.infra.inputs import ImageInputs
from heliostat.infra.storage import StorageConfig
from heliostat.train.architectures.config import Mlp, ModelConfig
from heliostat.train.architectures.network import read_settings
from heliostat.train.bases import base_folder, write_inputs
from heliostat.train.config import Augment, DataConfig
from heliostat.train.data import Prepared

INPUTS = ImageInputs(height=8, width=6, mode="grey", mean=(0.5,), std=(0.2,))


def based(folder: Path, augment: Augment) -> Path:
    write_inputs(INPUTS, folder)
    data = DataConfig(source="photos", augment=augment)
    prepared = Prepared("f", "u", folder, ("no", "yes"), {})
    return base_folder(ModelConfig(mlp=Mlp(hidden=[4])), data, prepared, StorageConfig(url=str(folder)))


@pytest.mark.parametrize("key", ["crop", "erase"])
def test_an_image_may_be_changed_but_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    said = rf"data.augment.{key}: 6 given; images have 6 pixels at their shorter side, and less is allowed"
    with pytest.raises(DataError, match=said):
        based(tmp_path, Augment.model_validate({key: 6}))
    allowed = Augment.model_validate({key: 5})
    assert read_settings(based(tmp_path, allowed)).augment == allowed
