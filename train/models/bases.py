"""The folder a run starts from: an existing base model, or the settings of a network to build."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from pydantic import TypeAdapter

from heliostat.cluster.folders import cache_folder, fill
from heliostat.infra.errors import DataError, ModelError
from heliostat.infra.registry.inputs import ImageInputs, Inputs
from heliostat.infra.storage.config import StorageConfig
from heliostat.train.data.config import Augment, DataConfig
from heliostat.train.data.prepared import Prepared
from heliostat.train.data.rows import Rows
from heliostat.train.data.sources.resolve import resolve
from heliostat.train.models.architectures.config import ModelConfig

INPUTS = "inputs.json"
"""File in the prepared data with what an encoder has learned: see `infra.registry.inputs`."""
TOKENIZER = "tokenizer.json"
"""The tokenizer, if the encoder has trained one."""
END = "<|endoftext|>"
"""The end-of-text token of a trained tokenizer."""


def base_model(model: ModelConfig, storage: StorageConfig) -> Path | None:
    """The local folder of the base model; None if the model is built here.

    Raises ModelError if it cannot be found or downloaded.
    """
    from heliostat.train.models.pretrained import as_folder

    return as_folder(resolve(model.source, storage, key="model.source")) if model.source else None


def base_folder(model: ModelConfig, data: DataConfig, prepared: Prepared, storage: StorageConfig) -> Path:
    """The folder that `Task.load_model` loads: of the base model, or of the model built in its place.

    The latter is built from the spec's settings and what was learned from the training split of `prepared`. Raises
    DataError if `data.augment` could hide a whole image, or a generator cannot make images of that size.
    """
    found = base_model(model, storage)
    if found:
        return found
    asked = {"model": model.model_dump(), "data": data.model_dump(mode="json"), "prepared": prepared.fingerprint}
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return fill(cache_folder() / "bases" / name, lambda folder: _write(folder, model, data, prepared))


def learned_inputs(prepared: Prepared) -> Inputs | None:
    """What an encoder has learned from the training split; None if it learns nothing."""
    file = prepared.directory / INPUTS
    return TypeAdapter(Inputs).validate_json(file.read_bytes()) if file.is_file() else None


def write_inputs(inputs: Inputs, folder: Path) -> None:
    """Writes what an encoder has learned to the folder of prepared data."""
    (folder / INPUTS).write_text(inputs.model_dump_json(indent=2) + "\n", encoding="utf-8")


def rows_of(prepared: Prepared, split: str) -> Rows:
    """The records of `train`, `validation` or `test`."""
    inputs = learned_inputs(prepared)
    shape = inputs.shape if isinstance(inputs, ImageInputs) else (-1,)
    return Rows(prepared.split(split), tuple(prepared.labels), shape)


def _write(folder: Path, model: ModelConfig, data: DataConfig, prepared: Prepared) -> None:
    tokenizer = prepared.directory / TOKENIZER
    if model.decoder:
        from heliostat.train.models.architectures.decoder import write_decoder

        write_decoder(model.decoder, tokenizer, END, data.max_length, folder)
        return
    from heliostat.train.models.architectures.network import Settings, write_settings

    inputs = learned_inputs(prepared)
    if inputs is None:
        raise ModelError(f"{prepared.url}: holds no {INPUTS}; prepare the data again")
    if isinstance(inputs, ImageInputs):
        _check_augment(data.augment, min(inputs.height, inputs.width))
        _check_stages(model, inputs)
    write_settings(Settings(model=model, inputs=inputs, augment=data.augment), folder)
    if tokenizer.is_file():
        shutil.copy(tokenizer, folder)


def _check_stages(model: ModelConfig, inputs: ImageInputs) -> None:
    """Raises DataError if a generator's stages, each of which doubles the sides, cannot produce the images' size."""
    if model.gan is None:
        return
    stages = len(model.gan.channels)
    if inputs.height % 2**stages or inputs.width % 2**stages:
        raise DataError(
            f"model.gan.channels: {stages} stages given, for images of {inputs.height} x {inputs.width} pixels; their "
            f"sides must be multiples of {2**stages}: data.images can resize them, or give fewer stages"
        )


def _check_augment(augment: Augment, side: int) -> None:
    """Raises DataError if an image whose shorter side has `side` pixels could be shifted out of view or erased."""
    for key, pixels in (("crop", augment.crop), ("erase", augment.erase)):
        if pixels >= side:
            raise DataError(
                f"data.augment.{key}: {pixels} given; images have {side} pixels at their shorter side, and "
                "less is allowed"
            )
