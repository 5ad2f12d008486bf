"""Exported programs (torch.export): models that can be loaded without their source code.

The archive holds the graph as JSON and the weights as plain bytes; nothing in it is pickled, and an archive in which
anything is, or that could run code in another way, is not loaded.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from heliostat.infra.errors import ModelError

FILE = "program.pt2"
DYNAMIC = torch.export.Dim.AUTO


class Program(torch.nn.Module):
    """An exported program as a module, always in evaluation mode."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        super().__init__()
        graph = exported.module(check_guards=False)  # guards are source code in the archive
        # Convolutions compute in this memory format; otherwise each call would reorder their weights.
        self.graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.names = tuple(exported.state_dict)
        self.shapes = {
            node.name: tuple(node.meta["val"].shape)
            for node in exported.graph.find_nodes(op="placeholder")
            if node.name in exported.graph_signature.user_inputs
        }
        """Shape of each input; the first dimension is the batch."""

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The outputs for `inputs`, which have the names of the export."""
        return self.graph(**inputs)

    def train(self, mode: bool = True) -> Program:
        """Does nothing: an exported program has no training mode."""
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and buffers, by their names in the original model."""
        return {name: tensor for name, tensor in self.graph.state_dict().items() if name in self.names}


def save(model: torch.nn.Module, example: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Exports `model` for any batch size; `example` are its inputs, with a batch of at least two.

    Raises ModelError if it cannot be exported.
    """
    records = {name: {0: DYNAMIC} for name in example}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model.eval(), (), dict(example), dynamic_shapes=records)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the model cannot be exported ({str(error).splitlines()[0][:200]})") from error
        exported.example_inputs = None  # type: ignore[assignment]  # the only part of an archive that would be pickled
        torch.export.save(exported, folder / FILE)


def load(folder: Path, device: torch.device | None = None) -> Program:
    """The program in `folder`, on the CPU or on `device`.

    Raises ModelError if it cannot be read, or if it could run code; none of it has run then.
    """
    # A second of imports, for processes that know the class and load no program.
    from torch.export.passes import move_to_device_pass
    from torch.export.pt2_archive._package import load_pt2

    from heliostat.infra.registry import program_check

    file = folder / FILE
    if not zipfile.is_zipfile(file):
        raise ModelError(f"{file}: no exported program; a file as torch.export.save writes it is needed")
    try:
        program_check.check(file)
        # torch.export.load would try again with the format before this one, which is all pickled.
        exported = load_pt2(str(file)).exported_programs["model"]
        # Unlike Module.to, this also moves tensors created in the graph, such as the initial state of an LSTM.
        return Program(exported if device is None else move_to_device_pass(exported, device))
    except ModelError:
        raise
    except Exception as error:  # torch raises errors of all kinds for a damaged archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{file}: cannot be loaded ({reason[:200]})") from error
