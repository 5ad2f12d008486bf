"""How the trials of a search are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heliostat.tune.budget import Budget
from heliostat.tune.lineage import Schedule
from heliostat.tune.trials import Objective

MakeJob = Callable[[Mapping[str, Any], Schedule], dict[str, Any]]
"""The job of a trial with these values after this past, for workers; raises HeliostatError if they cannot work."""


@dataclass(frozen=True)
class Settings:
    """How trials are run."""

    prefix: str
    """Of the search in storage."""
    owner: int
    """Of which driver of the search this one is, from 1."""
    grace: float
    max_failures: int
    most_gangs: int
    objectives: tuple[Objective, ...]
    budget: Budget
    checkpoint_bytes: int
    """Most bytes of checkpoints of paused trials."""
    worker_hour_usd: float | None = None
    """What an hour of a worker costs; None if it is not known."""
