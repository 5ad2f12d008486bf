"""Exported programs (torch.export): models that are loaded without the code that they were written in.

The archive holds the graph as JSON and the weights as plain bytes; nothing in it is pickled.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export.passes import move_to_device_pass

from heliostat.infra.errors import ModelError

FILE = "program.pt2"
DYNAMIC = torch.export.Dim.AUTO


class Program(torch.nn.Module):
    """An exported program that can be called like any module; it always evaluates."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        super().__init__()
        # The layout that convolutions compute in; each call would reorder their weights otherwise.
        self.graph = exported.module().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.names = tuple(exported.state_dict)
        self.shapes = {
            node.name: tuple(node.meta["val"].shape)
            for node in exported.graph.find_nodes(op="placeholder")
            if node.name in exported.graph_signature.user_inputs
        }
        """Of each input, the records first."""

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for `inputs`, by the names that the program was exported with."""
        return self.graph(**inputs)

    def train(self, mode: bool = True) -> Program:
        """Nothing: what was exported has no layers that train otherwise."""
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and buffers, by the names that they had in the model."""
        return {name: tensor for name, tensor in self.graph.state_dict().items() if name in self.names}


def save(model: torch.nn.Module, example: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Exports `model`, called with tensors like `example` (two records or more), for any number of records.

    Raises ModelError where it cannot be exported so.
    """
    records = {name: {0: DYNAMIC} for name in example}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model.eval(), (), dict(example), dynamic_shapes=records)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the model cannot be exported ({str(error).splitlines()[0][:200]})") from error
        exported.example_inputs = None  # type: ignore[assignment]  # the one part of an archive that would be pickled
        torch.export.save(exported, folder / FILE)


def load(folder: Path, device: torch.device | None = None) -> Program:
    """The program in `folder`, on the CPU or on `device`; ModelError where it cannot be read."""
    file = folder / FILE
    if not zipfile.is_zipfile(file):
        raise ModelError(f"{file}: no exported program; a file as torch.export.save writes it is needed")
    try:
        exported = torch.export.load(file)
        # Unlike Module.to, this reaches the tensors that the graph itself makes, such as the first state of an LSTM.
        return Program(exported if device is None else move_to_device_pass(exported, device))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: cannot be loaded ({str(error).splitlines()[0][:200]})") from error
