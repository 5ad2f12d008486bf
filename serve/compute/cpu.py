"""Faster linear layers on CPUs with bfloat16 units (AMX, AVX512-BF16): weights are packed once, in oneDNN's layout.

PyTorch reorders the weights in every call unless a model is compiled, which takes a minute at each start. These are the
operators that a compiled model would call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SMALLEST = 64
"""Layers with fewer inputs or outputs, such as a head with two labels, are not packed: it brings nothing."""


class PackedLinear(nn.Module):
    """`activation(x @ weight.T + bias)` in one pass, for bfloat16 inputs [..., in_features]."""

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output [..., out_features]."""
        name, algorithm = self.activation
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
        return out


def pack(model: nn.Module) -> nn.Module:
    """Replaces the linear layers of a bfloat16 model on the CPU, in place; leaves other models unchanged."""
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not _supported():
        return model
    for module in list(model.modules()):
        gelu = _gelu_follows(module)
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and min(child.weight.shape) >= SMALLEST:
                setattr(module, name, PackedLinear(child, gelu=gelu))
        if gelu:
            module.intermediate_act_fn = nn.Identity()
    return model


def _supported() -> bool:
    operators: Any = torch.ops.mkldnn
    enabled = bool(torch.backends.mkldnn.enabled) and hasattr(operators, "_linear_pointwise")
    return enabled and bool(operators._is_mkldnn_bf16_supported())


def _gelu_follows(module: nn.Module) -> bool:
    """Whether `module` is the part of a BERT-like layer with one linear layer followed by the exact GELU."""
    from transformers.activations import GELUActivation

    activation = getattr(module, "intermediate_act_fn", None)
    is_exact = isinstance(activation, nn.GELU | GELUActivation) and getattr(activation, "approximate", "none") == "none"
    linears = [child for child in module.children() if type(child) is nn.Linear]
    return is_exact and len(linears) == 1 and min(linears[0].weight.shape) >= SMALLEST
