"""The table of trials as a study of Optuna."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from heliostat.tune.memo import PerTrial
from heliostat.tune.searchers.searcher import Setup
from heliostat.tune.trials import Trial

STEPS = 1_000_000
"""Optuna's steps are integers: millionths of a trial."""
ENOUGH = 10
"""Trials that must have been measured at a share before a model is made of it."""
NO_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""Optuna wants a time of each trial and makes nothing of it."""


class Told(FrozenTrial):
    """A trial in Optuna's words; a study copies it deeply, but nothing in it is ever changed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy.copy(self)


class Studies:
    """Makes a study of a table: what a searcher knows of each trial.

    - trained to its end: COMPLETE, with its best value;
    - stopped, paused or going on from a validation: PRUNED, with its best value until each validation;
    - failed, or none of its values a number: FAIL;
    - training, with no validation yet: RUNNING.

    `at_one_share` is for samplers that learn from complete trials only. To them a trial is COMPLETE as it was at the
    longest share that `ENOUGH` trials have reached, which is how BOHB chooses (Falkner et al. 2018).
    """

    def __init__(self, setup: Setup, at_one_share: bool, takes_parts: bool) -> None:
        """`takes_parts`: whether the sampler learns from trials that lack keys, such as those of another space."""
        self._setup, self._at_one_share, self._takes_parts = setup, at_one_share, takes_parts
        self._told: dict[float, PerTrial[Told | None]] = {}
        self.distributions: dict[str, BaseDistribution] = {
            key: domain.values.distribution() for key, domain in setup.space.domains.items()
        }

    def of(self, trials: Sequence[Trial], sampler: BaseSampler) -> optuna.Study:
        """A study of `trials` that draws by `sampler`."""
        directions = ["minimize" if one.mode == "min" else "maximize" for one in self._setup.objectives]
        study = optuna.create_study(storage=InMemoryStorage(), sampler=sampler, directions=directions)
        share = _share_of_enough(trials) if self._at_one_share else 1.0
        if share not in self._told:  # what was told of another share is worth nothing any more
            self._told = {share: PerTrial(lambda trial: self._tell(trial, share))}
        study.add_trials([one for one in self._told[share].of(trials) if one is not None])
        return study

    def _tell(self, trial: Trial, share: float) -> Told | None:
        """The trial as one that is complete at `share`; None if Optuna can make nothing of it."""
        parameters = self._parameters(trial)
        if parameters is None:
            return None
        values = [objective.best(trial.at(share)) for objective in self._setup.objectives]
        if trial.error or (trial.scores and not all(map(math.isfinite, values))):
            return self._as(TrialState.FAIL, parameters)
        if trial.scores and trial.share >= share:
            return self._as(TrialState.COMPLETE, parameters, values=values)
        if trial.is_training and (self._at_one_share or not trial.scores):
            return self._as(TrialState.RUNNING, parameters)
        return self._as(TrialState.PRUNED, parameters, curve=self._curve(trial)) if trial.scores else None

    def _as(
        self,
        state: TrialState,
        parameters: dict[str, Any],
        values: list[float] | None = None,
        curve: dict[int, float] | None = None,
    ) -> Told:
        return Told(
            number=-1,  # the study numbers its trials
            trial_id=-1,
            state=state,
            value=None,
            values=values,
            datetime_start=NO_TIME,
            datetime_complete=NO_TIME if state.is_finished() else None,
            params=parameters,
            distributions={key: self.distributions[key] for key in parameters},
            user_attrs={},
            system_attrs={},
            intermediate_values=curve or {},
        )

    def _parameters(self, trial: Trial) -> dict[str, Any] | None:
        space = self._setup.space
        inside = space.part_inside(trial.values)
        if not inside or not (self._takes_parts or space.is_complete(inside)):
            return None
        return {key: space.domains[key].values.to_optuna(value) for key, value in inside.items()}

    def _curve(self, trial: Trial) -> dict[int, float]:
        """By step; empty with several objectives, of which Optuna takes no steps."""
        if len(self._setup.objectives) > 1:
            return {}
        (objective,) = self._setup.objectives
        curve = {round(STEPS * score.share): objective.best(trial.at(score.share)) for score in trial.scores}
        return {step: value for step, value in curve.items() if math.isfinite(value)}


def _share_of_enough(trials: Sequence[Trial]) -> float:
    """The longest share that `ENOUGH` trials have reached; the shortest, while there are not as many."""
    shares = sorted((trial.share for trial in trials if trial.scores and not trial.error), reverse=True)
    return shares[:ENOUGH][-1] if shares else 1.0
