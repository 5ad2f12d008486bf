"""Attention over packed rows, linear in their records, and bf16 training on CPUs.

The records of a packed row do not attend to each other. A mask that says so would have tokens x tokens entries, nearly
all of them hidden, and would keep fused kernels from being used. GPUs process a row in one call of FlashAttention with
variable lengths (Dao 2023, https://arxiv.org/abs/2307.08691); where that does not apply (CPUs, float32, dropout), each
record is processed by itself.

The backward pass of PyTorch's fused attention is slow in bf16 on CPUs (about twice its own float32 time at 16 x 12
heads x 256 tokens x 32), while batched matrix products use the matrix units at full speed: two products and a softmax
take its place there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn import functional

from heliostat.train.data.packing import Records, can_pack, records_of

NAME = "heliostat_packed"


def implementation(config: Any) -> str | None:
    """The `attn_implementation` to load a model with: ours if it packs, or is a BERT on CPUs, else None (default)."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if not (can_pack(config) or (config.model_type == "bert" and not torch.cuda.is_available())):
        return None
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    return NAME


def mask(
    *, q_length: int, kv_length: int, attention_mask: torch.Tensor | None = None, device: Any = "cpu", **options: Any
) -> torch.Tensor | None:
    """The mask of padded records, or of new tokens after cached ones: [batch, 1, queries, keys].

    None for a packed row and for records without padding: `attention` knows what they see. Additive on CPUs, where our
    bf16 products add it; elsewhere True for what is seen.
    """
    from transformers.masking_utils import eager_mask, sdpa_mask

    if attention_mask is None and q_length == kv_length:
        return None
    make = eager_mask if torch.device(device).type == "cpu" else sdpa_mask
    return make(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, device=device, **options)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), with the signature that transformers calls.

    `query` [batch, heads, queries, width], `key` and `value` [batch, key heads, keys, width], `attention_mask` as made
    by `mask`. Returns [batch, queries, heads, width]. Without a mask, the records of a packed row (`position_ids`
    [1, tokens] that restart at 0) are apart, and a token sees the last `sliding_window` tokens, itself included.
    """
    if attention_mask is not None or key.shape[2] != query.shape[2]:
        return _attend(module, query, key, value, attention_mask, dropout, scaling, None), None
    if position_ids is None or position_ids.shape != (1, query.shape[2]) or len(query) > 1:
        return _attend(module, query, key, value, None, dropout, scaling, sliding_window), None
    return _attend_row(module, query, key, value, position_ids, dropout, scaling, sliding_window), None


@torch.compiler.disable  # compiled code would be made for the lengths of one row, and again for the next
def _attend_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position_ids: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    records = records_of(position_ids)
    if _has_kernel(query, key, value, dropout):
        return _flash(query, key, value, records, scaling, window)
    parts = zip(*(torch.split(states, records.lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([_attend(module, q, k, v, None, dropout, scaling, window) for q, k, v in parts], dim=1)


def _has_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Whether FlashAttention takes these states on their device; with variable lengths it has no dropout."""
    return (
        query.is_cuda and not dropout and can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, True, True))
    )


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    records: Records,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Causal attention within each of the `records`, in one call."""
    from torch.nn.attention.varlen import varlen_attn  # imports PyTorch's compiler: 0.7 CPU seconds

    query, key, value = (one[0].transpose(0, 1) for one in (query, key, value))
    edges, longest = records.edges, max(records.lengths)
    seen = (-1 if window is None else window - 1, 0)  # keys before and after a query
    found: Any = varlen_attn(
        query, key, value, edges, edges, longest, longest, scale=scaling, window_size=seen, enable_gqa=True
    )
    return found[None]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attention of a batch without packing; `window` is for no `attention_mask` only."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    is_slow = torch.is_grad_enabled() and query.dtype is torch.bfloat16 and query.device.type == "cpu"
    if is_slow and attention_mask is None and getattr(module, "is_causal", False):
        dropout = dropout if module.training else 0.0
        return _causal(query, key, value, dropout, scaling or query.shape[-1] ** -0.5, window)
    if window is not None and window < key.shape[2]:
        attention_mask = _hidden(window, query)
    if not is_slow:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling)[0]
    scaling, dropout = scaling or query.shape[-1] ** -0.5, dropout if module.training else 0.0
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Causal attention with as many keys as queries.

    The heads of a group are treated as more queries of their shared key head: no key is copied, and no gradients of
    copies are summed. The mask is added by the product of queries and keys, so that it needs no pass over the scores.
    """
    batch, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    queries = query.reshape(-1, groups * tokens, width)
    keys, values = (states.reshape(-1, tokens, width) for states in (key, value))
    hidden = _hidden(window, query).repeat(groups, 1)
    scores = torch.baddbmm(hidden, queries, keys.transpose(1, 2), alpha=scaling)
    weights = functional.dropout(scores.softmax(dim=-1), dropout)
    return torch.bmm(weights, values).view(batch, heads, tokens, width).transpose(1, 2)


def _hidden(window: int | None, query: torch.Tensor) -> torch.Tensor:
    """Minus infinity for keys that come later, or `window` tokens and more before; 0 elsewhere: [tokens, tokens]."""
    tokens = query.shape[2]
    power = 1 << (tokens - 1).bit_length()
    reached = None if window is None or window >= power else window
    return _made(power, reached, query.dtype, query.device)[:tokens, :tokens]


@lru_cache(maxsize=8)
def _made(tokens: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # it is kept for training too
        full = torch.full((tokens, tokens), -torch.inf, dtype=dtype, device=device)
        return full.triu(1) if window is None else full.triu(1) + full.tril(-window)
