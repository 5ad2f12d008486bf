"""Every configuration of a finite space, in an order drawn by the seed.

In the order of the values, which is mostly from bad to good, each trial would be the best so far: ASHA would promote
most of them, and a search that a budget ends would have seen one side of the space only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

from heliostat.infra.errors import ConfigError
from heliostat.tune.searchers.searcher import Setup, Values, rng_of
from heliostat.tune.trials import Trial

MOST_SHUFFLED = 100_000
"""Of a larger space, what comes after these is drawn at random."""


class GridSampler:
    """Goes through the space, shuffled."""

    def __init__(self, setup: Setup) -> None:
        """Raises ConfigError if a key is a range, which has no end of values."""
        self._space, self._seed = setup.space, setup.seed
        for key, domain in setup.space.domains.items():
            if math.isinf(domain.values.size):
                allowed = "choice, grid, quniform or randint"
                raise ConfigError(f"tune.space.{key}: {domain.text} given; tune.search: grid needs {allowed}")

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """All configurations, from the one whose turn it is."""
        turn = number % len(self._order)
        yield from self._order[turn:]
        yield from self._order[:turn]

    @cached_property
    def _order(self) -> list[Values]:
        found = list(islice(self._space.configurations(), MOST_SHUFFLED))
        rng_of(self._seed, 0, "grid").shuffle(found)
        return found
