"""Sequence parallelism (Jacobs et al. 2023, "DeepSpeed Ulysses"): workers divide the tokens of each packed row.

Everything except attention works token by token, on a worker's own part of the row. For attention, an all-to-all gives
each worker the whole row of some heads, and another one returns the result. The workers of a group are adjacent ranks.
DeepSpeed treats them as data-parallel workers with a part of the loss each: it averages over all of them, as the loop
expects. In evaluation each worker processes rows of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import distributed
from torch.nn import functional

from heliostat.train.data.packing import IGNORED
from heliostat.train.models.kernels.attention import attention, mask
from heliostat.train.parallel.distributed import World

NAME = "heliostat_ulysses"


def enable_sequence_parallelism(model: Any, world: World, size: int) -> None:
    """Makes `model` attend over rows of which each of `size` adjacent workers holds a part, during training.

    `size` must divide the world size and the model's numbers of attention and key-value heads.
    """
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
    from transformers import AttentionInterface, AttentionMaskInterface

    config = model.config
    exchange = UlyssesSPAttentionHF(
        attn=attention,
        batch_size=1,
        attn_head_count=config.num_attention_heads,
        attn_head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        kv_head_count=config.num_key_value_heads,
        num_hidden_layers=config.num_hidden_layers,
        process_group=_group(world, size),
        seq_length_is_variable=True,
        disable_in_eval=True,
    )
    AttentionInterface.register(NAME, exchange.forward)
    AttentionMaskInterface.register(NAME, mask)
    config._attn_implementation = NAME


@cache
def _group(world: World, size: int) -> Any:
    """This worker's process group of `size`; created once per process, by all workers together."""
    starts = range(0, world.size, size)
    groups = {start: distributed.new_group(list(range(start, start + size))) for start in starts}
    return groups[world.rank - world.rank % size]


def part(batch: dict[str, torch.Tensor], rank: int, size: int) -> dict[str, torch.Tensor]:
    """The part of a packed row for `rank` among `size` workers: [1, tokens / size] each.

    Rows are padded to a multiple of `size` tokens; the padding follows the last record, which does not attend to it.
    """
    if size == 1:
        return batch
    tokens = batch["input_ids"].shape[1]
    if more := -tokens % size:
        batch = {name: _filled(name, row, more) for name, row in batch.items()}
    width = (tokens + more) // size
    return {name: row[:, rank * width : (rank + 1) * width].contiguous() for name, row in batch.items()}


def _filled(name: str, row: torch.Tensor, more: int) -> torch.Tensor:
    if name == "position_ids":
        return torch.cat([row, row[:, -1:] + torch.arange(1, more + 1)], dim=1)
    value = {"input_ids": 0, "targets": IGNORED}.get(name)
    return functional.pad(row, (0, more), value=int(row[0, -1]) if value is None else value)
