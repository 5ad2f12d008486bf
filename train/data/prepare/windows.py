"""Splits a text that is too long for a model into windows, in which each of its tokens is learned once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.train.data.config import DataConfig
from heliostat.train.data.encoder import Encoder

IGNORED = -100
"""The label of a token without loss."""


@dataclass(frozen=True)
class Window:
    """A part of a record: its tokens from `start` to before `end`, of which the first `context` are not learned."""

    start: int
    end: int
    context: int

    def learned(self, labels: list[int]) -> list[int]:
        """The labels of the part."""
        return [IGNORED] * self.context + labels[self.start + self.context : self.end]


def splits(data: DataConfig, encoder: Encoder) -> bool:
    """Whether a record that is too long becomes several."""
    return encoder.is_running_text(data) if data.overflow == "auto" else data.overflow == "split"


def windows_of(whole: Sequence[Sequence[int]], data: DataConfig, encoder: Encoder) -> list[tuple[int, Window]]:
    """The windows of each record that are kept: one, unless records are split."""
    if not splits(data, encoder):
        return [(record, Window(0, data.max_length, 0)) for record in range(len(whole))]
    stride = data.stride or data.max_length * 3 // 4
    return [(record, part) for record, row in enumerate(whole) for part in windows(len(row), data.max_length, stride)]


def windows(length: int, longest: int, stride: int) -> list[Window]:
    """Parts of at most `longest` tokens, `stride` (below `longest`) apart, in which each token is learned once."""
    found = [Window(0, min(length, longest), 0)]
    while found[-1].end < length:
        start = found[-1].start + stride
        found.append(Window(start, min(length, start + longest), found[-1].end - start))
    return found
