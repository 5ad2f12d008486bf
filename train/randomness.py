"""Random numbers of training: dropout, the noise of generators, changes to images.

Each pass draws from a stream of its own, which follows from the run's seed, the step, the pass and the rank. So ranks
draw different numbers, and a resumed run draws what it would have drawn: no random state has to be stored, whatever the
number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


def seeded(passes: Iterable[T], seed: int, step: int, rank: int) -> Iterator[T]:
    """Yields each of a step's `passes` on `rank`, with PyTorch's generators, of all devices, set to its stream."""
    for index, one in enumerate(passes):
        (state,) = np.random.SeedSequence([seed, step, index, rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state))
        yield one
