"""Base class of the networks built here, and how to build one from its settings."""

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
    """Everything that a network is built from; stored as architecture.json in the base folder."""

    model: ModelConfig
    inputs: Inputs
    augment: Augment = Augment()


class Network(torch.nn.Module):
    """A network that is called with named tensors, those of `settings.inputs`, and returns one tensor."""

    records_at_once = {"cpu": 64, "cuda": 1024}
    """Largest micro-batch in records: what fits a CPU's caches, or keeps a GPU busy."""

    def __init__(self, settings: Settings, outputs: int) -> None:
        super().__init__()
        self.settings = settings
        self.outputs = outputs

    def example(self, records: int) -> dict[str, torch.Tensor]:
        """Example inputs of this number of records, for the published network."""
        return example(self.inputs, records)

    @property
    def inputs(self) -> Inputs:
        """The inputs of the published network."""
        return self.settings.inputs

    def published(self) -> torch.nn.Module:
        """The module that is published; called in the same way, with weights of the same names."""
        return self

    def published_value(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """The published value of the weight or buffer `name`, whose trained value is `value`."""
        return value

    def stepped(self) -> None:
        """Called after each optimizer step, before the next pass."""

    def parameter_groups(self) -> list[tuple[float, list[torch.nn.Parameter]]]:
        """All parameters, in groups with the learning rate factor of each."""
        return [(1.0, list(self.parameters()))]

    def forward_flops(self) -> float:
        """FLOPs of a forward pass, per token of a record, or per record if it has no tokens."""
        return counted(self.fresh(), **self.example(1))

    def fresh(self) -> Network:
        """A new, untrained instance with the same settings, on the CPU."""
        return type(self)(self.settings, self.outputs)

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the parameters."""
        return next(self.parameters()).dtype


def counted(module: torch.nn.Module, *args: torch.Tensor, **inputs: torch.Tensor) -> float:
    """FLOPs of a forward pass of `module`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*args, **inputs)
    return float(counter.get_total_flops())


def is_built(folder: Path) -> bool:
    """Whether `folder` holds a network built here, trained or not."""
    return (folder / FILE).is_file()


def write_settings(settings: Settings, folder: Path) -> None:
    """Writes architecture.json into `folder`."""
    (folder / FILE).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> Settings:
    """The settings in `folder`; raises ModelError if there are none."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{folder}: holds no {FILE} ({error.strerror})") from error
    return build(Settings, json.loads(text), source=str(folder / FILE))


def build_network(settings: Settings, outputs: int) -> Network:
    """The network described by `settings`, with this number of outputs; initialised from PyTorch's random state."""
    from importlib import import_module

    module: Any = import_module(f"{__package__}.{settings.model.architecture}")
    network: Network = module.NETWORK(settings, outputs)
    return network


def load_network(folder: Path, outputs: int) -> torch.nn.Module:
    """The published program in `folder`, or the network with the settings there and this number of outputs."""
    if (folder / programs.FILE).is_file():
        return programs.load(folder)
    return build_network(read_settings(folder), outputs)
