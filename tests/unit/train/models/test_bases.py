"""What a run begins with, where it is built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import ImageInputs
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.data.config import Augment, DataConfig
from heliostat.train.data.prepared import Prepared
from heliostat.train.models.architectures.config import Gan, Mlp, ModelConfig
from heliostat.train.models.architectures.network import read_settings
from heliostat.train.models.bases import base_folder, write_inputs

INPUTS = ImageInputs(height=8, width=6, mode="grey", mean=(0.5,), std=(0.2,))


MLP = ModelConfig(mlp=Mlp(hidden=[4]))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))


def based(folder: Path, augment: Augment, model: ModelConfig = MLP) -> Path:
    write_inputs(INPUTS, folder)
    data = DataConfig(source="photos", augment=augment)
    prepared = Prepared("f", "u", folder, ("no", "yes"), {})
    return base_folder(model, data, prepared, StorageConfig(url=str(folder)))


def test_a_generator_makes_images_of_the_size_of_the_data(tmp_path: Path) -> None:
    said = (
        r"model.gan.channels: 2 stages given, for images of 8 x 6 pixels; their sides must be multiples of 4: "
        r"data.images can resize them, or give fewer stages"
    )
    with pytest.raises(DataError, match=said):
        based(tmp_path, Augment(), ModelConfig(gan=Gan(channels=[8, 8])))
    assert based(tmp_path, Augment(), ModelConfig(gan=Gan(channels=[8])))


@pytest.mark.parametrize("key", ["crop", "erase"])
def test_an_image_may_be_changed_but_not_lost(tmp_path: Path, key: str) -> None:
    said = rf"data.augment.{key}: 6 given; images have 6 pixels at their shorter side, and less is allowed"
    with pytest.raises(DataError, match=said):
        based(tmp_path, Augment.model_validate({key: 6}))
    allowed = Augment.model_validate({key: 5})
    assert read_settings(based(tmp_path, allowed)).augment == allowed
