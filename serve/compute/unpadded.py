"""Classifier encoders that skip padding and what the head does not read (as in Zeng et al. 2022, "unpadded BERT").

Inside the encoder, the texts of a batch are concatenated in a single row, and each attends only to itself. The head
reads the first token of each text, so the last layer computes only that: a sixth of the work of six layers, saved
without changing any result. Embeddings and heads are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

NAME = "heliostat_unpadded"
MODEL_TYPES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
"""Models in which only the encoder mixes tokens, and only the embeddings depend on positions."""
PLACE_STEP = 16
"""A text's slot in the row is a multiple of this many tokens: attention over 239 tokens takes twice as long as over
240."""
ROW_STEP = 32
"""Row lengths are multiples of this: oneDNN prepares kernels for each new shape, which takes as long as a text."""


@dataclass(frozen=True)
class Row:
    """Layout of a padded batch after its texts are concatenated in one row, each in a slot of its own."""

    places: list[int]
    """Length of each text's slot in tokens, in batch order; unused tokens of a slot are masked."""
    sources: torch.Tensor
    """Index of each token of the row in the flattened batch; arbitrary for unused tokens."""
    masks: list[torch.Tensor | None]
    """Additive attention mask [1, 1, 1, slot length] of each text; None if its slot is full."""

    @classmethod
    def of(cls, mask: torch.Tensor, dtype: torch.dtype) -> Row:
        """The row for a mask [texts, tokens] that is true for real tokens, and for hidden states of `dtype`."""
        lengths: list[int] = mask.sum(1).tolist()
        places = [-(-length // PLACE_STEP) * PLACE_STEP for length in lengths]
        places[-1] += -sum(places) % ROW_STEP
        free = [place - length for place, length in zip(places, lengths, strict=True)]
        tokens = torch.split(mask.flatten().nonzero().flatten(), lengths)
        sources = [nn.functional.pad(found, (0, gap)) for found, gap in zip(tokens, free, strict=True)]
        masks = [_masked(length, gap, dtype) if gap else None for length, gap in zip(lengths, free, strict=True)]
        return cls(places, torch.cat(sources), masks)

    @property
    def firsts(self) -> list[int]:
        """Index of each text's first token in the row."""
        return list(accumulate(self.places[:-1], initial=0))

    def join(self, padded: torch.Tensor) -> torch.Tensor:
        """Turns [texts, tokens, width] into a row [1, tokens of all slots, width]."""
        return padded.flatten(0, 1)[self.sources].unsqueeze(0)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: list[int], scale: float
    ) -> torch.Tensor:
        """Attention within each text: [1, tokens, heads, width], for the first `queries[i]` tokens of text i."""
        texts = zip(
            torch.split(query, queries, 2),
            torch.split(key, self.places, 2),
            torch.split(value, self.places, 2),
            self.masks,
            strict=True,
        )
        attention = nn.functional.scaled_dot_product_attention
        return torch.cat([attention(q, k, v, mask, scale=scale) for q, k, v, mask in texts], dim=2).transpose(1, 2)


def _masked(length: int, free: int, dtype: torch.dtype) -> torch.Tensor:
    return nn.functional.pad(torch.zeros(1, 1, 1, length, dtype=dtype), (0, free), value=-torch.inf)


def unpad(model: Any) -> bool:
    """Makes a classifier skip padding, in place; returns False, and changes nothing, if it is not supported.

    For CPUs only: an accelerator prefers one kernel for all texts over one for each.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) not in MODEL_TYPES or next(model.parameters()).device.type != "cpu":
        return False
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    model.set_attn_implementation(NAME)
    encoder: Any = model.base_model.encoder
    encoder.layer[-1] = FirstTokenLayer(encoder.layer[-1])
    encoder.register_forward_pre_hook(_enter, with_kwargs=True)
    encoder.register_forward_hook(_leave)
    return True


def _enter(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    padded = args[0]
    mask = options.get("attention_mask")  # flash_attention_mask leaves [texts, tokens], or None if nothing is padded
    row = Row.of(padded.new_ones(padded.shape[:2], dtype=torch.bool) if mask is None else mask, padded.dtype)
    return (row.join(padded), *args[1:]), {**options, "attention_mask": None, "row": row}


def _leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    """Turns the encoder's output [1, texts, width] into a batch with one token per text: [texts, 1, width]."""
    output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
    return output


class FirstTokenLayer(nn.Module):
    """An encoder's last layer, only for each text's first token: [1, row tokens, width] to [1, texts, width]."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: torch.Tensor, *_: Any, row: Row, **__: Any) -> torch.Tensor:
        """The output of `layer` for the first token of each text."""
        mixer = self.layer.attention.self
        firsts = states[:, row.firsts]
        query, key, value = (
            project(of).unflatten(-1, (-1, mixer.attention_head_size)).transpose(1, 2)
            for project, of in ((mixer.query, firsts), (mixer.key, states), (mixer.value, states))
        )
        found = row.attend(query, key, value, [1] * len(row.places), mixer.scaling)
        mixed: torch.Tensor = self.layer.attention.output(found.flatten(2), firsts)
        out: torch.Tensor = self.layer.feed_forward_chunk(mixed)
        return out


def attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    row: Row,
    scaling: float,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention within each text of a row, with the signature that transformers expects.

    `query`, `key` and `value` [1, heads, tokens, width]; returns [1, tokens, heads, width].
    """
    return row.attend(query, key, value, row.places, scaling), None
