"""KV cache of the running requests: one row each, written in place, so that requests come and go without copies.

Rows 0 to n-1 are the running requests. Position p of a row holds its p-th token. New prompts are prefilled as a batch
of their own, padded on the left; each later step adds one position to every row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

BLOCK = 128
"""Rows grow by multiples of this many positions."""


class KVCache:
    """Implements transformers' cache interface with buffers [rows, heads, positions, head size] for each layer."""

    is_compileable = False

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.rows = 0
        self.positions = 0
        self._lengths: Sequence[int] | None = None
        self._first_row = 0
        self._at = torch.empty(0, dtype=torch.long)
        self._row_ids = torch.empty(0, dtype=torch.long)
        self._longest = 0

    def clear(self) -> None:
        """Drops all rows and frees their memory."""
        self.keys, self.values, self.rows, self.positions = [], [], 0, 0

    def fit(self, rows: int, positions: int, limit: int) -> None:
        """Allocates `rows` rows of `positions` each, and keeps what the rows hold.

        What is allocated, rows times positions, is at most `limit`, unless more is asked for, and at most twice what
        `rounded` gives. While it changes size, the old and the new buffer of one layer exist together.
        """
        wanted = rounded(rows, positions, limit)
        most = min(limit, 2 * math.prod(wanted))
        enough = rows <= self.rows and positions <= self.positions
        if enough and self.rows * self.positions <= most:
            return
        larger = max(self.rows, wanted[0]), max(self.positions, wanted[1])
        self._resize(*(larger if math.prod(larger) <= most else wanted))

    def _resize(self, rows: int, positions: int) -> None:
        # If memory ends half-way, this is the part that the buffers of all layers have.
        self.rows, self.positions = min(rows, self.rows), min(positions, self.positions)
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                buffers[layer] = _resized(old, rows, positions)
        self.rows, self.positions = rows, positions

    def read_prompts(self, first_row: int, lengths: Sequence[int]) -> None:
        """Prepares to prefill prompts of these lengths, padded on the left, into rows from `first_row` on."""
        self._first_row, self._lengths = first_row, lengths

    def step(self, first_row: int, positions: torch.Tensor, longest: int) -> None:
        """Prepares to write one token at `positions` [rows] of the rows from `first_row` on.

        `longest` is the greatest length after it. The same step may be prepared and written again.
        """
        self._first_row, self._lengths, self._at, self._longest = first_row, None, positions, longest
        self._row_ids = torch.arange(first_row, first_row + len(positions), device=positions.device)

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of one row over another."""
        for buffers in (self.keys, self.values):
            for buffer in buffers:
                buffer[target, :, :length] = buffer[source, :, :length]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores a layer's keys and values [rows, heads, tokens, head size]; returns those to attend to."""
        if layer_idx == len(self.keys):
            self.keys.append(_empty(keys, self.rows, self.positions))
            self.values.append(_empty(values, self.rows, self.positions))
        if self._lengths is not None:
            self._store_prompts(self.keys[layer_idx], keys, self._lengths)
            self._store_prompts(self.values[layer_idx], values, self._lengths)
            return keys, values
        rows = slice(self._first_row, self._first_row + len(self._row_ids))
        self.keys[layer_idx][self._row_ids, :, self._at] = keys[:, :, 0]
        self.values[layer_idx][self._row_ids, :, self._at] = values[:, :, 0]
        return (
            self.keys[layer_idx][rows, :, : self._longest],
            self.values[layer_idx][rows, :, : self._longest],
        )

    def _store_prompts(self, buffer: torch.Tensor, new: torch.Tensor, lengths: Sequence[int]) -> None:
        width = new.shape[2]
        for at, length in enumerate(lengths):
            buffer[self._first_row + at, :, :length] = new[at, :, width - length :]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused: masks and positions are passed to the model."""
        return 0


def rounded(rows: int, positions: int, limit: int) -> tuple[int, int]:
    """The rows and positions to allocate: powers of two and blocks, so that they rarely change.

    Rows times positions are at most `limit`, unless more is asked for.
    """
    positions = min(-(-positions // BLOCK) * BLOCK, max(positions, limit // rows))
    return max(rows, min(1 << (rows - 1).bit_length(), limit // positions)), positions


def _empty(like: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    # Zeros: masked positions still take part in products, and uninitialized memory may be NaN.
    return like.new_zeros(rows, like.shape[1], positions, like.shape[3])


def _resized(old: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    new, kept = _empty(old, rows, positions), (slice(rows), slice(None), slice(positions))
    new[: old.shape[0], :, : old.shape[2]] = old[kept]
    return new
