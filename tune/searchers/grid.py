"""Every configuration of a finite space, in order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from heliostat.infra.errors import ConfigError
from heliostat.tune.searchers.searcher import Setup, Values
from heliostat.tune.trials import Trial


class GridSampler:
    """Goes through the space; the last key changes fastest."""

    def __init__(self, setup: Setup) -> None:
        """Raises ConfigError if a key is a range, which has no end of values."""
        self._space = setup.space
        for key, domain in setup.space.domains.items():
            if math.isinf(domain.values.size):
                allowed = "choice, grid, quniform or randint"
                raise ConfigError(f"tune.space.{key}: {domain.text} given; tune.search: grid needs {allowed}")

    def draw(self, trials: Sequence[Trial], number: int) -> Iterator[Values]:
        """All configurations."""
        return self._space.configurations()
