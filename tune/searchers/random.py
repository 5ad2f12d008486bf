"""Independent random draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heliostat.tune.searchers.searcher import Setup, Values, rng_of
from heliostat.tune.trials import Trial


@dataclass(frozen=True)
class RandomSampler:
    """Draws from the domains, whatever the trials were like."""

    setup: Setup

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """Independent draws, endlessly."""
        rng = rng_of(self.setup.seed, number, "random")
        while True:
            yield self.setup.space.sample(rng)
