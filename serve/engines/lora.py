"""Low-rank adapters on one base model: the rows of a pass share its weights, and each has its own adapter or none.

LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) adds `B A x` to what a layer makes of `x`. The layer itself
works on all rows at once; the small matrices, stacked with zeros up to the largest rank, are gathered by row, as in
Punica (Chen et al. 2023, https://arxiv.org/abs/2310.18547) and S-LoRA (Sheng et al. 2023,
https://arxiv.org/abs/2311.03285).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heliostat.infra.errors import ModelError
from heliostat.serve.adapters.settings import MATRICES, SETTINGS, parse_settings

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
Pair = tuple[torch.Tensor, torch.Tensor]
"""The matrices of one layer: A [rank, inputs], and B [outputs, rank] with the adapter's scale in it."""


class Adapters:
    """The adapters of a model, by name, and which of them the rows of a pass have."""

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self.index = {name: at for at, name in enumerate(names)}
        self.device = device
        self.count = 0
        self.rows: torch.Tensor | None = None
        """Rows that have an adapter; None where no row has."""
        self.which = torch.empty(0, dtype=torch.long)
        """The adapter of each of them."""
        self._chosen: list[int | None] = []

    def choose(self, chosen: Sequence[int | None]) -> None:
        """The next pass has these rows: each with the adapter of this index, or None."""
        chosen = list(chosen)
        if chosen == self._chosen:
            return
        rows = [row for row, one in enumerate(chosen) if one is not None]
        self.count, self._chosen = len(chosen), chosen
        self.rows = torch.tensor(rows, device=self.device) if rows else None
        self.which = torch.tensor([chosen[row] for row in rows], dtype=torch.long, device=self.device)


class WithAdapters(nn.Module):
    """A layer whose rows may have adapters; for the others it is the layer alone, to the last bit."""

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, layer: nn.Module, down: torch.Tensor, up: torch.Tensor, adapters: Adapters) -> None:
        """`down` is [adapters, inputs, rank], `up` [adapters, rank, outputs]."""
        super().__init__()
        self.layer = layer
        self.adapters = adapters
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output [rows, tokens, outputs] for [rows, tokens, inputs]."""
        out: torch.Tensor = self.layer(x)
        rows, which = self.adapters.rows, self.adapters.which
        if rows is None:
            return out
        if x.dim() != 3 or len(x) != self.adapters.count:
            raise ModelError(f"adapters: a layer of this model takes {list(x.shape)}, in which no row can be told")
        low = torch.bmm(x[rows], self.down[which])
        return out.index_add_(0, rows, torch.bmm(low, self.up[which]))


def attach(model: nn.Module, folders: Mapping[str, Path]) -> Adapters:
    """Puts the adapters in `folders`, by name, beside the layers of `model`, in place.

    Raises ModelError for one that is no plain LoRA adapter, or that belongs to layers which the model does not have.
    """
    weight = next(model.parameters())
    adapters = Adapters(folders, weight.device)
    found = [read(folder) for folder in folders.values()]
    for name in sorted({name for pairs in found for name in pairs}):
        down, up = (part.to(weight) for part in stack([pairs.get(name) for pairs in found]))
        layer = _layer(model, name, down.shape[1])
        model.set_submodule(name, WithAdapters(layer, down, up, adapters))
    return adapters


def read(folder: Path) -> dict[str, Pair]:
    """The matrices of the adapter in `folder`, as peft stores them, by the name of their layer."""
    settings = parse_settings((folder / SETTINGS).read_bytes())
    from safetensors.torch import load_file

    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / MATRICES).items():
        match = _NAME.fullmatch(name)
        if not match:
            raise ModelError(f"{MATRICES}: holds {name}; only lora_A and lora_B of layers are served")
        found.setdefault(match[1], {})[match[2]] = value.float()
    return {name: (pair["A"], pair["B"] * settings.scale) for name, pair in found.items()}


def stack(pairs: Sequence[Pair | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """`down` [adapters, inputs, rank] and `up` [adapters, rank, outputs] of one layer; zeros for one without it."""
    first = next(pair for pair in pairs if pair)
    rank = max(len(pair[0]) for pair in pairs if pair)
    down = torch.zeros(len(pairs), first[0].shape[1], rank)
    up = torch.zeros(len(pairs), rank, first[1].shape[0])
    for at, pair in enumerate(pairs):
        if pair:
            down[at, :, : len(pair[0])] = pair[0].T
            up[at, : len(pair[0])] = pair[1].T
    return down, up


def _layer(model: nn.Module, name: str, inputs: int) -> nn.Module:
    try:
        layer: Any = model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"{MATRICES}: belongs to {name}, and the base model has no such layer") from None
    width = getattr(layer, "in_features", inputs)
    if width != inputs:
        raise ModelError(f"{MATRICES}: {name} takes {inputs} inputs, and in the base model {width}")
    return layer
