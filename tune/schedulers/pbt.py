"""Population based training.

Jaderberg, Dalibard, Osindero, Czarnecki, Donahue, Razavi, Vinyals, Green, Dunning, Simonyan, Fernando, Kavukcuoglu:
"Population Based Training of Neural Networks", 2017, with truncation selection.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.tune import dominance
from heliostat.tune.dominance import Point
from heliostat.tune.lineage import values_at
from heliostat.tune.ranking import NEAR, is_lost, point
from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.explore import rng_of
from heliostat.tune.schedulers.halving import waits
from heliostat.tune.schedulers.median import next_validation
from heliostat.tune.trials import Begin, Continue, Objective, Origin, Trial


@dataclass(frozen=True)
class Pbt:
    """All trials go from validation to validation together, none more than one ahead of another.

    At each of them the lowest quarter takes over weights and values of one of the best quarter, drawn by the seed. A
    trial is compared by the validation at that share, since those are the weights that would be taken over. One that is
    surely not in the lowest quarter goes on before the others have come.
    """

    settings: Settings

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """As `Scheduler.decide`."""
        if may_begin:
            return Begin(next_validation(0.0, self.settings.grace))
        living = [trial for trial in trials if not trial.stopped and not is_lost(trial, self.settings.objectives)]
        share = min((trial.until for trial in living), default=1.0)
        come = [trial for trial in living if trial.share > share - NEAR]
        values = [point_at(trial, self.settings.objectives, share) for trial in come]
        ranked = [come[index] for index in dominance.order(values)]
        for trial in come:
            if waits(trial) and trial.share < share + NEAR:
                decision = self._decide_one(trial, trials, ranked, len(living))
                if decision:
                    return decision
        return None

    def _decide_one(
        self, trial: Trial, trials: Sequence[Trial], ranked: Sequence[Trial], population: int
    ) -> Continue | None:
        """How a trial goes on; None if others have to come first. `ranked` are those that have come, best first."""
        until = next_validation(trial.share, self.settings.grace)
        quarter = max(1, population // 4) if population > 1 else 0
        worse = len(ranked) - 1 - ranked.index(trial)
        if worse >= quarter:
            return Continue(trial.number, until)
        if len(ranked) < population:
            return None
        rng = rng_of(self.settings.seed, trial.number, trial.share)
        donor = rng.choice(ranked[:quarter])
        values = self.explore(trials, donor, trial.share, rng)
        return Continue(trial.number, until, Origin(donor.number, trial.share), values)

    def explore(self, trials: Sequence[Trial], donor: Trial, share: float, rng: random.Random) -> Mapping[str, Any]:
        """The values to go on with from the donor's weights."""
        assert self.settings.perturb, "PBT needs a way to change values"
        return self.settings.perturb(values_at(donor, share), rng)


def point_at(trial: Trial, objectives: Sequence[Objective], share: float) -> Point:
    """The values of the validation at `share`, or the last one before."""
    return point([score for score in trial.scores if score.share < share + NEAR][-1], objectives)
