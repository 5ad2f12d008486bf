"""Attention over one packed row against the same records one by one, and against a mask of tokens x tokens.

32 records of 256 tokens in bfloat16, with the heads of SmolLM2-135M, forward and backward: on the GPU if there is one,
else on all cores. Mark: a packed row takes at most 1.1 times as long as its records one by one. On a GPU also the peaks
of memory. `difference` is between gradients of the row and of the mask, relative to their norm.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from heliostat.train.models.kernels.attention import attention
from tests.benchmarks.record import record

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
RECORDS = int(os.environ.get("BENCH_RECORDS", "32"))
LENGTH = 256
HEADS, KEY_HEADS, WIDTH = 9, 3, 64
MARK = 1.1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Layer(torch.nn.Module):
    """What attention asks of the module that calls it."""

    is_causal = True
    num_key_value_groups = HEADS // KEY_HEADS


def packed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """All records in one row."""
    positions = torch.arange(LENGTH, device=DEVICE).repeat(RECORDS)[None]
    return attention(Layer(), query, key, value, None, position_ids=positions)[0]


def one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A call for each record."""
    records = zip(*(torch.split(states, LENGTH, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([attention(Layer(), q, k, v, None)[0] for q, k, v in records], dim=1)


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """As transformers does it: which tokens see which, as a mask."""
    record_of = torch.arange(RECORDS, device=DEVICE).repeat_interleave(LENGTH)
    mask = (record_of[:, None] == record_of).tril_()
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)


KINDS: dict[str, Callable[..., torch.Tensor]] = {"packed": packed, "one by one": one_by_one, "masked": masked}


def measure(attend: Callable[..., torch.Tensor]) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Seconds and, on a GPU, the peak of memory in MiB; and the gradients of queries, keys and values."""
    drawn = torch.Generator(DEVICE).manual_seed(0)
    shapes = [(1, heads, RECORDS * LENGTH, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    states = [torch.randn(shape, generator=drawn, device=DEVICE).bfloat16().requires_grad_() for shape in shapes]
    _start()
    began = time.perf_counter()
    torch.autograd.backward(attend(*states).square().sum())
    found: dict[str, Any] = {}
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": time.perf_counter() - began, **found}, [one.grad for one in states if one.grad is not None]


def _start() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    """Each kind in turn, after a round that warms up."""
    rounds = [{kind: measure(attend)[0] for kind, attend in KINDS.items()} for _ in range(ROUNDS + 1)][1:]
    medians = {
        kind: {name: statistics.median(one[kind][name] for one in rounds) for name in rounds[0][kind]} for kind in KINDS
    }
    ours, theirs = measure(packed)[1], measure(masked)[1]
    seconds = {kind: found["seconds"] for kind, found in medians.items()}
    record(
        "packed_attention",
        {
            "mark": MARK,
            "device": torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE,
            "packed_to_one_by_one": round(seconds["packed"] / seconds["one by one"], 2),
            "masked_to_packed": round(seconds["masked"] / seconds["packed"], 2),
            "difference": max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True)),
            "medians": medians,
        },
    )


if __name__ == "__main__":
    main()
