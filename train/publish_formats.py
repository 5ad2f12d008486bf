"""The formats in which a model is published.

The whole model; an adapter whose base model is stored once for all its adapters; or, for a network built here, an
exported program.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from heliostat.infra.checksums import file_digest
from heliostat.infra.registry import bundle, programs
from heliostat.infra.registry.fetching import merge
from heliostat.infra.registry.published import ADAPTER, WEIGHTS, BaseModel
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.base import Store
from heliostat.train.config import TrainConfig
from heliostat.train.engine import gathered_weights
from heliostat.train.models import adapters, pretrained
from heliostat.train.models.architectures.network import Network

Weights = dict[str, torch.Tensor]
NEEDED = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*")
"""Files of a base model that are stored; its tokenizer is stored with the adapter."""


class WholeModel:
    """A plain model with adapters merged in."""

    file = f"{WEIGHTS}/model.safetensors"
    """Path of the weights in the bundle."""

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields name and full tensor of each published weight, on the CPU; all ranks must iterate together."""
        return gathered_weights(engine)

    def name(self, name: str) -> str | None:
        """The published name of entry `name` of the trained model's state; None if it is not published."""
        return adapters.plain_name(name)

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the weights, the model's configuration and the tokenizer from `base`."""
        model.save_pretrained(bundle_folder / WEIGHTS, state_dict=weights)
        pretrained.tokenizer(base).save_pretrained(bundle_folder / WEIGHTS)

    def whole(self, bundle_folder: Path, base: Path, scratch: Path) -> Path:
        """A Hugging Face model folder made from the bundle, as serving will load it."""
        return bundle_folder / WEIGHTS

    def stored(self, bundle_folder: Path, model: torch.nn.Module) -> Weights:
        """The stored weights, by the names of `gathered`; `model` was loaded from them."""
        return model.state_dict()

    def store_base(self, store: Store, base: Path) -> BaseModel | None:
        """Stores the base model in `base` for bundles that do not contain it; None if the bundle does."""
        return None


class AdapterOnly(WholeModel):
    """An adapter as peft stores it; its base model is a bundle of its own, shared by all its adapters."""

    file = f"{ADAPTER}/{adapters.FILE}"

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """The adapter's matrices."""
        return adapters.adapter_weights(engine.module)

    def name(self, name: str) -> str | None:
        """The name that peft uses for a matrix of the adapter."""
        return adapters.adapter_name(name)

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the adapter and the tokenizer from `base`."""
        adapters.save(model, weights, bundle_folder / ADAPTER)
        pretrained.tokenizer(base).save_pretrained(bundle_folder / ADAPTER)

    def whole(self, bundle_folder: Path, base: Path, scratch: Path) -> Path:
        """The model in `base` with the adapter merged in."""
        merge(base, bundle_folder / ADAPTER, scratch)
        return scratch

    def stored(self, bundle_folder: Path, model: torch.nn.Module) -> Weights:
        """The weights in the adapter's file."""
        return load_file(bundle_folder / self.file)

    def store_base(self, store: Store, base: Path) -> BaseModel:
        """The bundle of the model in `base`; uploaded if it is not in storage yet."""
        files = sorted({file for pattern in NEEDED for file in base.glob(pattern)})
        sums = [[file.name, file_digest(file)] for file in files]
        prefix = f"bases/{hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]}"
        if not store.exists(f"{prefix}/{bundle.MANIFEST}"):
            with scratch("base") as folder:
                for file in files:
                    (folder / file.name).symlink_to(file.resolve())
                bundle.publish_once(store, prefix, folder)
        return BaseModel(url=f"{store.url.rstrip('/')}/{prefix}", digest=bundle.read_manifest(store, prefix).digest)


class ExportedProgram(WholeModel):
    """A network built here, exported as a program that runs without Heliostat's model code."""

    file = f"{WEIGHTS}/{programs.FILE}"

    def __init__(self, model: Network) -> None:
        self.names = frozenset(model.published().state_dict())
        self.value = model.published_value

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights and buffers that the program needs, in the form that it needs."""
        return ((name, self.value(name, value)) for name, value in gathered_weights(engine) if name in self.names)

    def name(self, name: str) -> str | None:
        """`name` if the program needs it, else None."""
        return name if name in self.names else None

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the program, and the contents of `base`: its settings, and its tokenizer if it has one."""
        folder = bundle_folder / WEIGHTS
        shutil.copytree(base, folder)
        fresh = model.fresh()
        published = fresh.published()
        published.load_state_dict(weights)
        programs.save(published, fresh.example(2), folder)

    def stored(self, bundle_folder: Path, model: Any) -> Weights:
        """The program's weights and buffers."""
        found: Weights = model.weights()
        return found


def form_of(model: torch.nn.Module, train: TrainConfig) -> WholeModel:
    """The publish format for `model` with the settings in `train`."""
    if isinstance(model, Network):
        return ExportedProgram(model)
    return AdapterOnly() if train.adapter and train.adapter.publish == "adapter" else WholeModel()
