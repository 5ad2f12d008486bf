"""What a language model that is trained from nothing has to beat: n-grams, on the same tokens."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

Context = tuple[int, ...]
BEFORE = -1
"""In place of tokens before the first."""


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Chen and Goodman 1999, section 2.7), with one discount for all orders.

    The highest order goes by how often a token followed its context, the lower ones by how many different tokens
    stood before both.
    """

    def __init__(self, rows: Iterable[Sequence[int]], vocabulary: int, order: int = 4, discount: float = 0.75) -> None:
        self.order, self.discount, self.vocabulary = order, discount, vocabulary
        self.counts: list[defaultdict[Context, Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for row in rows:
            for context, token in self._pairs(row):
                self._count(context, token)
        self.sums = [{context: found.total() for context, found in level.items()} for level in self.counts]

    def _pairs(self, row: Sequence[int]) -> Iterator[tuple[Context, int]]:
        """Each token but the first, which nothing precedes, with the `order - 1` before it; BEFORE stands for none."""
        padded = [BEFORE] * (self.order - 1) + list(row)
        for place in range(self.order, len(padded)):
            yield tuple(padded[place - self.order + 1 : place]), padded[place]

    def _count(self, context: Context, token: int) -> None:
        """Once at the highest order that there is; below that only where the longer one is new."""
        while True:
            found = self.counts[len(context)][context]
            found[token] += 1
            if found[token] > 1 or not context:
                return
            context = context[1:]

    def probability(self, token: int, context: Context) -> float:
        """Of `token` after `context`, of which the last `order - 1` tokens count."""
        context = context[max(0, len(context) - self.order + 1) :]
        if not context:
            return self._discounted(token, (), 1 / self.vocabulary)
        return self._discounted(token, context, self.probability(token, context[1:]))

    def _discounted(self, token: int, context: Context, below: float) -> float:
        found = self.counts[len(context)].get(context)
        if not found:
            return below
        total = self.sums[len(context)][context]
        own = max(found[token] - self.discount, 0.0) if token in found else 0.0
        return (own + self.discount * len(found) * below) / total

    def perplexity(self, rows: Iterable[Sequence[int]]) -> float:
        """Over every token of `rows` but the first of each."""
        losses = [-math.log(self.probability(token, context)) for row in rows for context, token in self._pairs(row)]
        return math.exp(sum(losses) / len(losses))
