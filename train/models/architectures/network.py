"""A model that is built here: from its settings, the same on every worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from heliostat.infra.config.strict import StrictModel, build
from heliostat.infra.errors import ModelError
from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import Inputs
from heliostat.train.data.config import Augment
from heliostat.train.models.architectures.config import ModelConfig
from heliostat.train.models.architectures.stages import example

FILE = "architecture.json"


class Settings(StrictModel):
    """All that a network is built from; a base folder holds it as architecture.json."""

    model: ModelConfig
    inputs: Inputs
    augment: Augment = Augment()


class Network(torch.nn.Module):
    """A model that is called with tensors by name, those of `settings.inputs`, and returns one tensor."""

    records_at_once = {"cpu": 64, "cuda": 1024}
    """Records of one pass: what fits a CPU's caches, or keeps a GPU busy."""

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__()
        self.settings = settings
        self.outputs = outputs

    def example(self, records: int) -> dict[str, torch.Tensor]:
        """Inputs of so many records, as it takes them once it is published."""
        return example(self.inputs, records)

    @property
    def inputs(self) -> Inputs:
        """What it takes once it is published."""
        return self.settings.inputs

    def published(self) -> torch.nn.Module:
        """The part of it that is published, called as it is, with weights of the same names."""
        return self

    def published_value(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """What a weight or buffer of this `name` and `value` is published as."""
        return value

    def stepped(self) -> None:
        """Hears of each step of the optimizer, before the next pass."""

    def parameter_groups(self) -> list[tuple[float, list[torch.nn.Parameter]]]:
        """All parameters, in groups with what multiplies the learning rate of each."""
        return [(1.0, list(self.parameters()))]

    def forward_flops(self) -> float:
        """FLOPs of a forward pass, for each token of a record, or for the record where it has none."""
        return counted(self.fresh(), **self.example(1))

    def fresh(self) -> Network:
        """Another one like it, with weights that are not trained, on the CPU."""
        return type(self)(self.settings, self.outputs)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return next(self.parameters()).dtype


def counted(module: torch.nn.Module, *args: torch.Tensor, **inputs: torch.Tensor) -> float:
    """FLOPs of a forward pass of `module`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*args, **inputs)
    return float(counter.get_total_flops())


def is_built(folder: Path) -> bool:
    """Whether `folder` is of a model that is built here, trained or not."""
    return (folder / FILE).is_file()


def write_settings(settings: Settings, folder: Path) -> None:
    """Writes architecture.json into `folder`."""
    (folder / FILE).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> Settings:
    """What `write_settings` has written; ModelError where nothing has."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{folder}: holds no {FILE} ({error.strerror})") from error
    return build(Settings, json.loads(text), source=str(folder / FILE))


def build_network(settings: Settings, outputs: int) -> Network:
    """The network that `settings` describe, with so many outputs; its weights are drawn from PyTorch's seed."""
    from importlib import import_module

    module: Any = import_module(f"{__package__}.{settings.model.architecture}")
    network: Network = module.NETWORK(settings, outputs)
    return network


def load_network(folder: Path, outputs: int) -> torch.nn.Module:
    """The published program in `folder`, or the network whose settings are there, with so many outputs."""
    if (folder / programs.FILE).is_file():
        return programs.load(folder)
    return build_network(read_settings(folder), outputs)
