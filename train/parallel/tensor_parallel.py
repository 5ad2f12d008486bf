"""Tensor parallelism (Shoeybi et al. 2019, "Megatron-LM") with DeepSpeed's AutoTP: adjacent ranks split each layer.

Input projections of attention and MLP are split by outputs, their output projections by inputs; one all-reduce each
sums the results. Embeddings, norms and head are replicated on every worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from heliostat.infra.errors import ModelError

SPLIT = "ds_is_replaced_module"
"""DeepSpeed's mark on parameters that AutoTP has split."""
COLUMNS = [r".*\.self_attn\.[qkv]_proj\.weight$", r".*\.mlp\.(gate|up)_proj\.weight$"]
ROWS = [r".*\.self_attn\.o_proj\.weight$", r".*\.mlp\.down_proj\.weight$"]
WHOLE = [r".*\.self_attn\.[qk]_norm\.weight$"]
"""Norms of single heads: replicated, but each worker has only the gradient of its own heads."""


def tensor_parallel(size: int) -> dict[str, Any]:
    """The `tensor_parallel` section of DeepSpeed's JSON; empty if `size` is 1."""
    if size == 1:
        return {}
    specs = [
        {"patterns": COLUMNS, "partition_type": "column"},
        {"patterns": ROWS, "partition_type": "row"},
        {"patterns": WHOLE, "partition_type": "skip", "grad_allreduce": True},
    ]
    layers = {"use_default_specs": False, "layer_specs": specs}
    return {"tensor_parallel": {"autotp_size": size, "partition_config": layers}}


def check_split(model: torch.nn.Module, size: int) -> None:
    """Raises ModelError if AutoTP found nothing to split, so that each worker would hold and compute all of `model`."""
    if size > 1 and not any(hasattr(parameter, SPLIT) for parameter in model.parameters()):
        raise ModelError(f"train.tensor_parallel: {size} given, but no layer of this model has been split; use 1")


@contextmanager
def whole(parameter: torch.Tensor) -> Iterator[None]:
    """Gathers `parameter` inside the block if AutoTP has split it; its workers must enter together.

    DeepSpeed's own function for splitting it again would detach it from the memory that ZeRO updates.
    """
    if not hasattr(parameter, SPLIT):
        yield
        return
    own = parameter.data
    parameter.gather_params([parameter])  # type: ignore[attr-defined]
    try:
        yield
    finally:
        parameter.data = own
