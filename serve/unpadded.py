"""Encoders that compute no padding (as in Zeng et al. 2022, "unpadded BERT").

Inside the encoder the texts of a batch lie one after the other in a single row, and each attends to itself alone.
Outside of it they are padded as ever, so that embeddings, pooling and heads stay as the model has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

NAME = "heliostat_unpadded"
MODEL_TYPES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
"""Models whose encoder is all that mixes tokens, and takes positions from the embeddings alone."""
LENGTH_STEP = 32
"""Rows are multiples of this many tokens: oneDNN prepares a kernel for each shape, for as long as a text takes."""


@dataclass(frozen=True)
class Row:
    """Where the tokens of a padded batch are once they lie in one row."""

    lengths: list[int]
    """Tokens of each text, then of the filling."""
    kept: torch.Tensor
    """Of each token of the texts, its place in the flattened batch."""
    shape: tuple[int, int]
    """Texts and tokens of the padded batch."""

    @classmethod
    def of(cls, mask: torch.Tensor) -> Row:
        """The row for a mask [texts, tokens] that is true where a token is."""
        kept = mask.flatten().nonzero().flatten()
        return cls([*mask.sum(1).tolist(), -len(kept) % LENGTH_STEP], kept, (mask.shape[0], mask.shape[1]))

    def join(self, padded: torch.Tensor) -> torch.Tensor:
        """[texts, tokens, width] as a row [1, tokens of all texts and filling, width]."""
        texts = padded.flatten(0, 1)[self.kept]
        return nn.functional.pad(texts, (0, 0, 0, self.lengths[-1])).unsqueeze(0)

    def split(self, row: torch.Tensor) -> torch.Tensor:
        """The row as [texts, tokens, width], with zeros where there is no token."""
        padded = row.new_zeros(self.shape[0] * self.shape[1], row.shape[-1])
        padded[self.kept] = row[0, : len(self.kept)]
        return padded.view(*self.shape, -1)


def unpad(model: Any) -> bool:
    """Has the encoder of `model` skip padding, in place; False, and nothing changed, for a model that cannot.

    On CPUs: an accelerator would rather have one kernel for all texts than one for each.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) not in MODEL_TYPES or next(model.parameters()).device.type != "cpu":
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    model.set_attn_implementation(NAME)
    encoder: nn.Module = model.base_model.encoder
    encoder.register_forward_pre_hook(_enter, with_kwargs=True)
    encoder.register_forward_hook(_leave, with_kwargs=True)
    return True


def _enter(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = options.get("attention_mask")
    if mask is None:  # flash_attention_mask gives one, of two dimensions, only where something is padded
        return args, options
    row = Row.of(mask)
    return (row.join(args[0]), *args[1:]), {**options, "attention_mask": None, "row": row}


def _leave(_: nn.Module, __: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
    if "row" in options:
        output.last_hidden_state = options["row"].split(output.last_hidden_state)
    return output


def attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    row: Row | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention within each text of a row, in the form that transformers calls.

    `query`, `key` and `value` [batch, heads, tokens, width]; returns [batch, tokens, heads, width]. Without a row each
    of the batch is a text without padding.
    """
    attend = nn.functional.scaled_dot_product_attention
    if row is None:
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2), None
    texts = zip(*(torch.split(states, row.lengths, dim=2) for states in (query, key, value)), strict=True)
    found = [attend(q, k, v, dropout_p=dropout, scale=scaling) for q, k, v in texts]
    return torch.cat(found, dim=2).transpose(1, 2), None
