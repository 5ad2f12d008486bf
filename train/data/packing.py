"""Sequence packing: a micro-batch is one row of records without padding; they do not attend to each other.

Positions restart at 0 with each record, which tells attention where a record begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional

IGNORED = -100
"""The label of a token without loss."""
MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Decoders in which only attention mixes tokens, that accept position ids, and whose head is one linear layer."""
MULTIPLE = 32
"""Rows are padded to a multiple of this many tokens: on CPUs a kernel is prepared for each shape."""


def can_pack(config: Any) -> bool:
    """Whether a model with this configuration accepts packed rows."""
    return config.model_type in MODEL_TYPES


def pack(ids: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """Packs all records into one row: int64 [1, tokens] each.

    `input_ids`; `position_ids`; `records`, an index into `ids`; `targets`, the label of the next token of the same
    record, -100 for no loss. Padding is appended to the last record: it attends to the record, but not the other way
    round.
    """
    lengths = np.array([len(row) for row in ids])
    lengths[-1] += -lengths.sum() % MULTIPLE
    row = {
        "input_ids": [np.pad(one, (0, length - len(one))) for one, length in zip(ids, lengths, strict=True)],
        "position_ids": [np.arange(length) for length in lengths],
        "records": [np.full(length, index) for index, length in enumerate(lengths)],
        "targets": [
            np.pad(one[1:], (0, length - len(one) + 1), constant_values=IGNORED)
            for one, length in zip(labels, lengths, strict=True)
        ],
    }
    return {name: torch.from_numpy(np.concatenate(parts).astype(np.int64))[None] for name, parts in row.items()}


def unpack(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [records, tokens] of the same records, for models without packing.

    Tokens that come after the last target of all records are left out: nothing depends on them, and the padding of a
    packed row could exceed the model's positions.
    """
    row = {name: values[0] for name, values in batch.items()}
    width = 1 + max(row["position_ids"][row["targets"] != IGNORED].tolist(), default=0)
    is_kept = row["position_ids"] < width
    places = row["records"][is_kept], row["position_ids"][is_kept]
    padded = row["input_ids"].new_zeros(int(row["records"][-1]) + 1, width)
    mask = torch.zeros_like(padded)
    padded[places] = row["input_ids"][is_kept]
    mask[places] = 1
    return {"input_ids": padded, "attention_mask": mask}


@dataclass(frozen=True)
class Records:
    """Where the records of a packed row lie."""

    edges: torch.Tensor
    """Where each begins, and the row's end: int32 [records + 1], on the row's device."""
    lengths: list[int]
    """Tokens of each."""


@lru_cache(maxsize=1)  # every layer asks for the same row, and to answer a GPU has to be waited for
def records_of(position_ids: torch.Tensor) -> Records:
    """The records of a row with `position_ids` [1, tokens]; one if the positions do not restart."""
    with torch.inference_mode(False):  # what is kept may be needed for gradients
        starts = (position_ids[0, 1:] == 0).nonzero().flatten() + 1
        edges = functional.pad(functional.pad(starts, (1, 0)), (0, 1), value=position_ids.shape[1]).int()
        return Records(edges, edges.diff().tolist())
