"""No scheduler: each trial is trained to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.tune.ranking import is_lost
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.halving import waits
from heliostat.tune.trials import Begin, Continue, Trial


@dataclass(frozen=True)
class Full:
    """Trains every trial in full; one that was paused before goes on to its end."""

    settings: Settings

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        for trial in trials:
            if waits(trial) and not is_lost(trial, self.settings.objectives):
                return Continue(trial.number, 1.0)
        return Begin(1.0) if may_begin else None
