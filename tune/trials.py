"""What a search knows of its trials: searchers and schedulers decide from this, and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SEED = "train.seed"
"""The key of the seed that a run draws from: its first weights, its dropout, the order of its records."""


@dataclass(frozen=True)
class Score:
    """A validation of a trial."""

    share: float
    """Of the whole trial, in (0, 1]: a trial that was trained to its end has 1."""
    step: int
    """Optimizer steps until then."""
    metrics: Mapping[str, float]
    seconds: float = 0.0
    """That were trained and validated since the one before."""
    steps: int = 0
    """Of the whole trial; 0 where it is not known."""


@dataclass(frozen=True)
class Origin:
    """The trial and the share of it whose weights and optimizer another one starts from."""

    trial: int
    share: float


@dataclass(frozen=True)
class Stretch:
    """A part of a trial before it took over weights or was given other values."""

    until: float
    """The share at which it ended; it began at 0, or where the one before it ended."""
    values: Mapping[str, Any]
    origin: Origin | None = None


@dataclass(frozen=True)
class Trial:
    """One configuration."""

    number: int
    """From 0, in the order in which they were proposed."""
    values: Mapping[str, Any]
    """By key of `tune.space`; keys whose condition does not hold are left out. A further run of a configuration has its
    own `SEED` among them."""
    until: float
    """The share that it was told to train to."""
    scores: tuple[Score, ...] = ()
    """In the order of their steps."""
    error: str | None = None
    """Why it cannot go on: it failed, or its metric is no number."""
    stopped: str | None = None
    """Why it shall not go on though it could: a user's stop, or the end of the search."""
    origin: Origin | None = None
    """Whose weights it began with, or went on with last; None for its own."""
    past: tuple[Stretch, ...] = ()
    """What it was trained with before `values` and `origin` (population based training)."""
    repeats: int | None = None
    """The trial whose configuration it runs once more on another seed, as part of the search (`tune.repeats`)."""
    confirms: int | None = None
    """The same, after the search (`tune.confirm`)."""

    @property
    def configuration(self) -> int:
        """The number of the first trial of its configuration: its own unless it repeats or confirms that one."""
        return next((one for one in (self.repeats, self.confirms) if one is not None), self.number)

    @property
    def share(self) -> float:
        """What has been trained of it."""
        return self.scores[-1].share if self.scores else 0.0

    @property
    def lasting(self) -> tuple[Score, ...]:
        """The validations of weights that it goes on with.

        Those from before it took over others do not count, but for the last one until there is another.
        """
        if self.origin is None:
            return self.scores
        begun = self.origin.share + 1e-9
        return tuple(score for score in self.scores if score.share > begun) or self.scores[-1:]

    @property
    def is_training(self) -> bool:
        """Whether it is on its way to `until`."""
        return not self.error and not self.stopped and self.share < self.until

    def at(self, share: float) -> Trial:
        """The trial as it was when it had reached `share`: in a short trial the first validation may be beyond it."""
        until = tuple(score for score in self.scores if score.share <= share)
        return replace(self, scores=until or self.scores[:1], error=None)


@dataclass(frozen=True)
class Objective:
    """A metric that trials are compared by."""

    metric: str
    mode: str
    """`min` or `max`."""

    def best(self, trial: Trial) -> float:
        """The best of the trial's validations; NaN if none is a finite number."""
        values = [score.metrics.get(self.metric, math.nan) for score in trial.lasting]
        pick = min if self.mode == "min" else max
        return pick((value for value in values if math.isfinite(value)), default=math.nan)

    def loss(self, trial: Trial) -> float:
        """Its best value, negated where more is better: less is better; infinite if there is none."""
        value = self.best(trial)
        return math.inf if math.isnan(value) else value if self.mode == "min" else -value


@dataclass(frozen=True)
class Begin:
    """A decision: a new trial, trained to the share `until`."""

    until: float


@dataclass(frozen=True)
class Continue:
    """A decision: a trial goes on to the share `until`."""

    trial: int
    until: float
    origin: Origin | None = None
    """Weights and optimizer that it takes over instead of its own (population based training)."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """All that it is trained with from here, where that changes."""


def go_on(trial: Trial, decision: Continue) -> Trial:
    """The trial once it is decided that it goes on."""
    trial = replace(trial, until=decision.until)
    if decision.origin is None and not decision.values:
        return trial
    past = (*trial.past, Stretch(trial.share, trial.values, trial.origin))
    return replace(trial, values=decision.values or trial.values, origin=decision.origin, past=past)


def as_before_failing(trial: Trial) -> Trial:
    """The trial once it is tried again: without its error, and without a last validation that was no number."""
    scores = trial.scores
    if scores and not all(map(math.isfinite, scores[-1].metrics.values())):
        scores = scores[:-1]
    return replace(trial, scores=scores, error=None)
