"""Language model loss without materialising the logits: one chunk of targets at a time, from head to gradient.

For 4,096 targets and a vocabulary of 49,152 the logits alone are 805 MB in float32, and cross-entropy holds them three
times. Here each chunk's logits are turned into its share of the gradients at once (as in Hsu et al. 2024, "Liger
Kernel"), so that the backward pass has nothing left to compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from heliostat.train.data.packing import IGNORED

CHUNK = 1024
"""Targets whose logits are held at a time."""


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy (float32 scalar) of `hidden @ weight.T` against `targets`.

    `hidden` [targets, width], `weight` [vocabulary, width], `targets` int64 [targets].
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for rows in _chunks(len(targets)):
            logits = functional.linear(hidden[rows], weight).float()
            own = targets[rows, None]
            norm = logits.logsumexp(dim=-1, keepdim=True)
            total += (norm - logits.gather(1, own)).sum()
            gradient = logits.sub_(norm).exp_().scatter_add_(1, own, -torch.ones_like(norm)).to(weight.dtype)
            hidden_gradient[rows] = gradient @ weight
            if weight_gradient is not None:
                weight_gradient += gradient.T @ hidden[rows]
        ctx.save_for_backward(hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*(None if gradient is None else gradient * outer[0] for gradient in ctx.saved_tensors), None)


class NextTokenHead(nn.Linear):
    """A linear head that returns the loss, not the logits, if it gets targets.

    This module is what is called, so that ZeRO gathers its weight once per call, whatever the rank's number of chunks.
    """

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        """Logits, or the summed loss of `targets`; without gradients, loss and correctness of each: [targets, 2]."""
        if targets is None:
            return super().forward(hidden)
        if torch.is_grad_enabled():
            return linear_cross_entropy(hidden, self.weight, targets)
        found = [
            score(functional.linear(hidden[rows], self.weight, self.bias), targets[rows])
            for rows in _chunks(len(targets))
        ]
        return torch.cat([hidden.new_empty(0, 2, dtype=torch.float32), *found])


def score(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Loss of each target, and whether it is the likeliest: float32 [targets, 2] of `logits` [targets, vocabulary]."""
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    return torch.stack([losses, (logits.argmax(dim=-1) == targets).float()], dim=1)


def patch_loss_head(model: Any) -> None:
    """Makes the decoder `model` accept `targets` [rows, tokens], -100 for no loss, and return its head's output."""
    model.lm_head.__class__ = NextTokenHead
    model.forward = partial(_forward, model, model.forward)


def _forward(model: Any, plain: Any, *args: Any, targets: torch.Tensor | None = None, **options: Any) -> Any:
    if targets is None:
        return plain(*args, **options)
    hidden = model.base_model(*args, **options).last_hidden_state
    wanted = targets != IGNORED
    return model.lm_head(hidden[wanted], targets[wanted])


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
