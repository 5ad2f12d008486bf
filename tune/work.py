"""What a gang is given, what comes back, and where a trial's checkpoints are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.tune.trials import Origin, Score


@dataclass(frozen=True)
class Work:
    """A stretch of a trial, from where it is to the share `until`."""

    number: int
    """From 0, in the order in which they were decided."""
    trial: int
    values: Mapping[str, Any]
    until: float
    origin: Origin | None = None
    """The trial that it starts from, in place of itself."""
    seen: tuple[int, ...] = ()
    """Numbers of the works whose results were taken in before this was decided, and after the decision before."""
    repeats: int | None = None
    """As of `Trial`."""
    confirms: int | None = None
    """As of `Trial`."""
    again: bool = False
    """Whether the trial had failed, and is tried again as a user asked for."""


@dataclass
class Progress:
    """A work on its way."""

    scores: list[Score] = field(default_factory=list)
    failures: int = 0
    limit: int | None = None
    """The most records in a micro-batch, once memory has run out."""
    steps_again: int = 0


@dataclass(frozen=True)
class Result:
    """How a stretch ended."""

    work: int
    scores: tuple[Score, ...] = ()
    error: str | None = None
    """Why the trial cannot go on."""
    steps_again: int = 0
    """Optimizer steps that were trained once more, since a gang or the driver was lost."""
    micro_batch: int | None = None
    """Records in a micro-batch, where memory had run out with more."""


@dataclass(frozen=True)
class Place:
    """Where a trial's checkpoints are in storage, and which one it goes on from."""

    prefix: str
    """New ones are stored there."""
    source: str
    """That of the trial whose weights and optimizer it starts with: below it the checkpoint is looked for."""
    step: int
    """That of the last validation that is known, 0 if there is none: the checkpoint is this one, or one before it if
    that is not there, or one of the trial's own that was stored before its next validation."""
    patience_seconds: float
    """How long to wait for it: another gang may still be storing it."""

    @property
    def is_own(self) -> bool:
        """Whether the trial goes on from its own checkpoint."""
        return self.prefix.startswith(f"{self.source}/")


def score_of(found: Mapping[str, Any], grace: float) -> Score:
    """The score of a validation that `Member.advance` returns.

    The k-th belongs to the share k · grace, though steps are whole.
    """
    every = math.ceil(grace * found["steps"])
    share = 1.0 if found["step"] >= found["steps"] else min(1.0, found["step"] // every * grace)
    return Score(round(share, 9), found["step"], dict(found["metrics"]), found["seconds"], found["steps"])
