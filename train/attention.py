"""Attention for bf16 training on CPUs.

The backward pass of PyTorch's fused attention is slow in bf16 on CPUs (about twice its own float32 time at 16 x 12
heads x 256 tokens x 32), while the matrix units run plain batched products at full speed. This one goes through
two products and a softmax when gradients are wanted on a CPU in bf16, and through the fused kernel otherwise.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "heliostat_cpu"


def implementation(config: Any) -> str | None:
    """The `attn_implementation` to load a model with: ours on CPUs where the model can take it, else its default."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    if torch.cuda.is_available() or config.model_type not in ("bert", "llama"):
        return None
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), in the form that transformers calls.

    `query` [batch, heads, queries, width], `key` and `value` [batch, key heads, keys, width], `attention_mask`
    additive [batch, 1, queries, keys]. Returns [batch, queries, heads, width].
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if not (torch.is_grad_enabled() and query.dtype is torch.bfloat16):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = torch.matmul(query * (scaling or query.shape[-1] ** -0.5), key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.nn.functional.dropout(scores.softmax(dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None
