"""The forms in which a model is published.

Whole; as an adapter beside a base model that is stored once for all; or, where it was built here, as a program.
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
"""What is stored of a base model; its tokenizer goes with the adapter."""


class WholeModel:
    """A plain model, adapters merged in."""

    file = f"{WEIGHTS}/model.safetensors"
    """Where the weights are in the bundle."""

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and whole value of all that is published, on the CPU; all ranks must iterate together."""
        return gathered_weights(engine)

    def name(self, name: str) -> str | None:
        """What `name` in the state of the trained model is published as; None for what is not."""
        return adapters.plain_name(name)

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the weights, their configuration and the tokenizer of the model in `base`."""
        model.save_pretrained(bundle_folder / WEIGHTS, state_dict=weights)
        pretrained.tokenizer(base).save_pretrained(bundle_folder / WEIGHTS)

    def whole(self, bundle_folder: Path, base: Path, scratch: Path) -> Path:
        """A Hugging Face model folder of what was written, as serving will have it."""
        return bundle_folder / WEIGHTS

    def stored(self, bundle_folder: Path, model: torch.nn.Module) -> Weights:
        """What the files hold, by the names of `gathered`; `model` was loaded from them."""
        return model.state_dict()

    def store_base(self, store: Store, base: Path) -> BaseModel | None:
        """Where the base model in `base` is stored, for a bundle that goes without it."""
        return None


class AdapterAlone(WholeModel):
    """An adapter as peft stores it; its base model is a bundle of its own, the same for all its adapters."""

    file = f"{ADAPTER}/{adapters.FILE}"

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """The matrices of the adapter."""
        return adapters.adapter_weights(engine.module)

    def name(self, name: str) -> str | None:
        """What peft calls a matrix of the adapter."""
        return adapters.adapter_name(name)

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the adapter and the tokenizer of the model in `base`."""
        adapters.save(model, weights, bundle_folder / ADAPTER)
        pretrained.tokenizer(base).save_pretrained(bundle_folder / ADAPTER)

    def whole(self, bundle_folder: Path, base: Path, scratch: Path) -> Path:
        """The model in `base` with the adapter merged in."""
        merge(base, bundle_folder / ADAPTER, scratch)
        return scratch

    def stored(self, bundle_folder: Path, model: torch.nn.Module) -> Weights:
        """What is in the adapter's file."""
        return load_file(bundle_folder / self.file)

    def store_base(self, store: Store, base: Path) -> BaseModel:
        """The bundle of the model in `base`, stored unless it is there."""
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
    """A model that is built here, as a program that needs no code of ours."""

    file = f"{WEIGHTS}/{programs.FILE}"

    def __init__(self, model: Network) -> None:
        self.names = frozenset(model.published().state_dict())
        self.value = model.published_value

    def gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights and buffers that the program needs, as it needs them."""
        return ((name, self.value(name, value)) for name, value in gathered_weights(engine) if name in self.names)

    def name(self, name: str) -> str | None:
        """The same, for what the program needs."""
        return name if name in self.names else None

    def write(self, model: Any, weights: Weights, base: Path, bundle_folder: Path) -> None:
        """Writes the program, and what is in `base`: what it was built from, and its tokenizer where it has one."""
        folder = bundle_folder / WEIGHTS
        shutil.copytree(base, folder)
        fresh = model.fresh()
        published = fresh.published()
        published.load_state_dict(weights)
        programs.save(published, fresh.example(2), folder)

    def stored(self, bundle_folder: Path, model: Any) -> Weights:
        """Weights and buffers of the program."""
        found: Weights = model.weights()
        return found


def form_of(model: torch.nn.Module, train: TrainConfig) -> WholeModel:
    """The form of `model`, and what `train` asks for."""
    if isinstance(model, Network):
        return ExportedProgram(model)
    return AdapterAlone() if train.adapter and train.adapter.publish == "adapter" else WholeModel()
