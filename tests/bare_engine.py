"""What publishing needs of a DeepSpeed engine."""

from __future__ import annotations

from typing import Any

import torch


class BareEngine(torch.nn.Module):
    """A module inside a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: torch.Tensor) -> Any:
        return self.module(**inputs)
