"""FLOPs of a model, and model FLOPs utilisation (MFU).

MFU is the FLOP/s that the trained tokens need over the device's peak (Chowdhery et al. 2022, PaLM, appendix B,
https://arxiv.org/abs/2204.02311). Recomputation, as with activation checkpointing, does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heliostat.infra.accelerators import accelerator_of
from heliostat.train.models.architectures.network import Network
from heliostat.train.parallel.tensor_parallel import SPLIT

SIDE = 1024
"""Rows and columns of the matrices whose product measures a device without a data sheet."""
ROUNDS = 5


@dataclass(frozen=True)
class Flops:
    """FLOPs of a forward and backward pass of one model."""

    body: float
    """Per token: 2 per weight forward, 2 backward for the activations, and 2 for each trained weight."""
    head: float
    """The same per target, for an output layer that is computed on targets only."""
    attention: float
    """Per pair of tokens of a record: 12 x layers x heads x width of a head."""

    @classmethod
    def of(cls, model: Any, split: int = 1) -> Flops:
        """FLOPs of a network built here, or of a transformers `model`, sharded or not, split over `split` workers.

        Embedding lookups cost nothing. The backward pass takes twice as much as the forward pass.
        """
        if isinstance(model, Network):
            return cls(body=3 * model.forward_flops(), head=0.0, attention=0.0)
        head = _output_layer(model)
        ours = {id(parameter) for parameter in head.parameters()} if head is not None else set()
        tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)} - ours
        parameters = [parameter for parameter in model.parameters() if id(parameter) not in tables]
        config = model.config
        return cls(
            body=sum(_dense(parameter, split) for parameter in parameters if id(parameter) not in ours),
            head=sum(_dense(parameter) for parameter in parameters if id(parameter) in ours),
            attention=12.0 * config.num_hidden_layers * _attention_width(config),
        )

    def needed(self, lengths: np.ndarray, targets: int) -> float:
        """FLOPs for records with these numbers of tokens, of which `targets` are targets."""
        tokens = lengths.astype(np.float64)
        return float(self.body * tokens.sum() + self.head * targets + self.attention * (tokens**2).sum())


def _output_layer(model: Any) -> Any:
    """The layer over the vocabulary; None for a model with a small head, which runs once per record."""
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _dense(parameter: torch.nn.Parameter, split: int = 1) -> float:
    count = getattr(parameter, "ds_numel", parameter.numel()) * (split if hasattr(parameter, SPLIT) else 1)
    return 6.0 * count if parameter.requires_grad else 4.0 * count


def _attention_width(config: Any) -> int:
    width = getattr(config, "head_dim", None)
    return width * config.num_attention_heads if width else config.hidden_size


def peak_flops(device: str, precision: str) -> float:
    """FLOP/s of this worker's device at `precision` (`bf16` or `fp32`).

    From the data sheet if there is one (bf16 only); else measured now, as the rate of a plain matrix product with this
    process's number of threads.
    """
    if device == "cuda" and precision == "bf16":
        known = accelerator_of(torch.cuda.get_device_name())
        if known:
            return known.peak_flops
    return _measured(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def _measured(device: str, dtype: torch.dtype) -> float:
    matrix = torch.randn(SIDE, SIDE, device=device).to(dtype)
    return 2.0 * SIDE**3 / min(_product_seconds(matrix) for _ in range(ROUNDS))


def _product_seconds(matrix: torch.Tensor) -> float:
    started = time.perf_counter()
    matrix @ matrix
    if matrix.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
