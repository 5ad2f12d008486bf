"""Attention on CPUs: packed rows, record by record, and bf16 training.

The backward pass of PyTorch's fused attention is slow in bf16 on CPUs (about twice its own float32 time at 16 x 12
heads x 256 tokens x 32), while batched matrix products use the matrix units at full speed. This implementation uses
two products and a softmax if gradients are needed on a CPU in bf16, and the fused kernel otherwise. On other devices
transformers' own kernels are used, which support packed rows too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from heliostat.train.data.packing import can_pack, lengths_of

NAME = "heliostat_cpu"


def implementation(config: Any) -> str | None:
    """The `attn_implementation` to load a model with: ours on CPUs if the model supports it, else None (default)."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if torch.cuda.is_available() or not (config.model_type == "bert" or can_pack(config)):
        return None
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    return NAME


def mask(*args: Any, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """The additive mask if records are padded, else None: for a packed row it would have tokens x tokens entries."""
    from transformers.masking_utils import eager_mask

    return None if attention_mask is None else eager_mask(*args, attention_mask=attention_mask, **options)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), with the signature that transformers calls.

    `query` [batch, heads, queries, width], `key` and `value` [batch, key heads, keys, width], `attention_mask`
    additive [batch, 1, queries, keys]. Returns [batch, queries, heads, width]. A packed row (`position_ids` that
    restart at 0) is processed record by record.
    """
    tokens = query.shape[2]
    lengths = lengths_of(position_ids, tokens) if attention_mask is None and key.shape[2] == tokens else None
    states = (torch.split(one, lengths or [key.shape[2]], dim=2) for one in (key, value))
    queries = torch.split(query, lengths or [tokens], dim=2)
    found = [
        _attend(module, q, k, v, attention_mask, dropout, scaling) for q, k, v in zip(queries, *states, strict=True)
    ]
    return torch.cat(found, dim=1), None


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if not (torch.is_grad_enabled() and query.dtype is torch.bfloat16 and query.device.type == "cpu"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling)[0]
    scaling, dropout = scaling or query.shape[-1] ** -0.5, dropout if module.training else 0.0
    if attention_mask is None and getattr(module, "is_causal", False):
        return _causal(query, key, value, dropout, scaling)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scaling: float
) -> torch.Tensor:
    """Causal attention with as many keys as queries.

    The heads of a group are treated as more queries of their shared key head: no key is copied, and no gradients of
    copies are summed. The mask is added by the product of queries and keys, so that it needs no pass over the scores.
    """
    batch, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    queries = query.reshape(-1, groups * tokens, width)
    keys, values = (states.reshape(-1, tokens, width) for states in (key, value))
    hidden = _later(1 << (tokens - 1).bit_length(), query.dtype, query.device)[:tokens, :tokens].repeat(groups, 1)
    scores = torch.baddbmm(hidden, queries, keys.transpose(1, 2), alpha=scaling)
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.bmm(weights, values).view(batch, heads, tokens, width).transpose(1, 2)


@lru_cache(maxsize=8)
def _later(tokens: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Minus infinity above the diagonal, 0 elsewhere: [tokens, tokens]."""
    return torch.full((tokens, tokens), -torch.inf, dtype=dtype, device=device).triu(1)
