"""Attention for grouped-query models: groups query heads by their key head instead of copying the keys."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

NAME = "heliostat_grouped"


def attend(
    module: torch.nn.Module,  # noqa: ARG001 - the signature is transformers'
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention, returned as [rows, tokens, heads, size].

    The query is [rows, heads, tokens, size], key and value are [rows, key heads, positions, size]. Without a mask,
    attention is causal. With one token per row, the query heads of a group become queries of their shared key head,
    which gives the same result without a copy of the cache.
    """
    rows, heads, tokens, size = query.shape
    causal = attention_mask is None and tokens > 1
    groups = heads // key.shape[1]
    if groups > 1 and tokens == 1:
        query = query.reshape(rows, key.shape[1], groups, size)
    elif groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    out = functional.scaled_dot_product_attention(query, key, value, attention_mask, is_causal=causal, scale=scaling)
    return out.reshape(rows, heads, tokens, -1).transpose(1, 2), None


def register() -> str:
    """Registers the function with transformers; returns the name to load models with."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
