"""LoRA adapters on one base model: the rows of a batch share its weights, and each has its own adapter or none.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) adds `B A x` to a layer's output for `x`. The layer itself runs
on all rows at once, and the small products are added to the rows of each adapter, as in S-LoRA (Sheng et al. 2023,
https://arxiv.org/abs/2311.03285). Rows are grouped by adapter: gathering the matrices per row, which suits GPU kernels,
makes a CPU copy them for every row, and takes several times as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heliostat.infra.errors import ModelError
from heliostat.serve.models.adapter_settings import MATRICES, SETTINGS, parse_settings

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
Pair = tuple[torch.Tensor, torch.Tensor]
"""Matrices of one layer: A transposed [inputs, rank], and B transposed [rank, outputs], multiplied by the scale."""


class Adapters:
    """The adapters of a model, and the assignment of the current batch's rows to them."""

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self.index = {name: at for at, name in enumerate(names)}
        self.device = device
        self.groups: list[tuple[int, torch.Tensor]] = []
        """Each adapter used in the batch, with its rows."""
        self.chosen: list[int | None] = []
        """The adapter index of each row."""

    def choose(self, chosen: Sequence[int | None]) -> None:
        """Sets the adapter index of each row of the next forward pass; None for the base model."""
        chosen = list(chosen)
        if chosen == self.chosen:
            return
        rows = {one: [at for at, other in enumerate(chosen) if other == one] for one in chosen if one is not None}
        self.groups = [(one, torch.tensor(those, device=self.device)) for one, those in rows.items()]
        self.chosen = chosen


class LoraLayer(nn.Module):
    """A layer with adapters; rows without one get exactly the output of the layer alone, bit for bit."""

    def __init__(self, layer: nn.Module, pairs: Sequence[Pair | None], adapters: Adapters) -> None:
        """`pairs` holds the matrices of each adapter, in order; None for one that does not change this layer."""
        super().__init__()
        self.layer = layer
        self.pairs = pairs
        self.adapters = adapters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output [rows, tokens, outputs] for [rows, tokens, inputs]."""
        out: torch.Tensor = self.layer(x)
        for which, rows in self.adapters.groups:
            if x.dim() != 3 or len(x) != len(self.adapters.chosen):
                raise ModelError(f"adapters: a layer of this model takes {list(x.shape)}, in which no row can be told")
            pair = self.pairs[which]
            if pair:
                out.index_add_(0, rows, x[rows] @ pair[0] @ pair[1])
        return out


def attach(model: nn.Module, folders: Mapping[str, Path]) -> Adapters:
    """Adds the adapters in `folders`, by name, to the layers of `model`, in place.

    Raises ModelError for one that is not a plain LoRA adapter, or that has layers which the model does not have.
    """
    weight = next(model.parameters())
    adapters = Adapters(folders, weight.device)
    found = [read(folder, weight) for folder in folders.values()]
    for name in sorted({name for pairs in found for name in pairs}):
        pairs = [one.get(name) for one in found]
        model.set_submodule(name, LoraLayer(_layer(model, name, pairs), pairs, adapters))
    return adapters


def read(folder: Path, like: torch.Tensor) -> dict[str, Pair]:
    """The matrices of the adapter in `folder`, by layer name, with the dtype and device of `like`."""
    settings = parse_settings((folder / SETTINGS).read_bytes(), SETTINGS)
    from safetensors.torch import load_file

    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / MATRICES).items():
        match = _NAME.fullmatch(name)
        if not match:
            raise ModelError(f"{MATRICES}: holds {name}; only lora_A and lora_B of layers are served")
        found.setdefault(match[1], {})[match[2]] = value.float().T
    pairs = {name: (pair["A"], pair["B"] * settings.scale) for name, pair in found.items()}
    return {name: (down.to(like).contiguous(), up.to(like).contiguous()) for name, (down, up) in pairs.items()}


def _layer(model: nn.Module, name: str, pairs: Sequence[Pair | None]) -> nn.Module:
    try:
        layer: Any = model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"{MATRICES}: belongs to {name}, and the base model has no such layer") from None
    for down, _ in filter(None, pairs):
        if getattr(layer, "in_features", len(down)) != len(down):
            raise ModelError(f"{MATRICES}: {name} takes {len(down)} inputs, and in the base model {layer.in_features}")
    return layer
