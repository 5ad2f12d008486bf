"""Sums token attributions over the words of a text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import regex

from heliostat.infra.texts import UNSPACED
from heliostat.serve.explain.answers import WordAttribution

_UNSPACED = regex.compile(UNSPACED)
_WORD = regex.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""A word with its apostrophes and combining marks (which `re` would not match), or a punctuation mark."""
Span = tuple[int, int]
"""Start and end (exclusive) in characters."""


def sum_by_word(text: str, pieces: Sequence[Span], attributions: Sequence[float]) -> list[WordAttribution]:
    """The words with the summed attributions of their tokens; `pieces` are the tokens' spans.

    In scripts that are written without blanks, words are what the model takes for words: its tokens. A token that spans
    several words counts for the one that it overlaps most; one that overlaps none is left out.
    """
    spans = [part for match in _WORD.finditer(text) for part in _parts(text, match.span(), pieces)]
    sums: dict[int, float] = {}
    for piece, attribution in zip(pieces, attributions, strict=True):
        at = _word_at(spans, piece)
        if at is not None:
            sums[at] = sums.get(at, 0.0) + attribution
    return [
        WordAttribution(word=text[slice(*spans[at])], start=spans[at][0], end=spans[at][1], attribution=sums[at])
        for at in sorted(sums)
    ]


def _parts(text: str, word: Span, pieces: Sequence[Span]) -> list[Span]:
    """The word itself; where it has characters of an unspaced script, one part for each token that begins there."""
    start, end = word
    if not _UNSPACED.search(text, start, end):
        return [word]
    starts = sorted({start, *(first for first, _ in pieces if start < first < end)})
    return list(zip(starts, [*starts[1:], end], strict=True))


def _word_at(spans: Sequence[Span], piece: Span) -> int | None:
    """Index of the word that `piece` overlaps most; None if it overlaps none."""
    start, end = piece
    first = max(0, bisect_right(spans, start, key=lambda span: span[0]) - 1)
    best, most = None, 0
    for at in range(first, len(spans)):
        if spans[at][0] >= end:
            break
        shared = min(end, spans[at][1]) - max(start, spans[at][0])
        if shared > most:
            best, most = at, shared
    return best
