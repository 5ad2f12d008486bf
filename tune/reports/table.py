"""The rows that every table of a search is made from: one a trial, whatever was resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.tune.lineage import Schedule, schedule_in
from heliostat.tune.ranking import outcome, point
from heliostat.tune.standing import Standing
from heliostat.tune.state import SearchState
from heliostat.tune.trials import SEED, Objective, Origin, Score, Trial

RUNNING, WAITING, PAUSED, FINISHED, STOPPED, FAILED = STATES = (
    "training",
    "waiting",
    "paused",
    "finished",
    "stopped",
    "failed",
)
"""Of a trial: a gang trains it, it waits for a gang, it may be promoted, it was trained in full, it shall not or cannot
go on."""
ENDED = (FINISHED, STOPPED, FAILED)
FIRST, REPEAT, CONFIRMATION = "first", "repeat", "confirmation"


@dataclass(frozen=True)
class Row:
    """A trial in one row."""

    number: int
    state: str
    """One of STATES."""
    reason: str
    """Why it failed or was stopped, in one line; empty for others."""
    values: Mapping[str, Any]
    share: float
    """What has been trained of it, in [0, 1]."""
    steps: int
    """Optimizer steps of its own; those of the trial that it was cloned from are not among them."""
    repeated_steps: int
    """Steps that were trained again after a loss; not among `steps`."""
    seconds: float
    """That a gang trained and validated it."""
    cost: float | None
    """Of those seconds; None if no price is known."""
    origin: Origin | None
    past: Schedule
    """What its weights were trained with before `values`."""
    best: Mapping[str, float]
    """Metrics of the best validation; empty if none has finite values."""
    last: Mapping[str, float]
    """Metrics of the last validation."""
    configuration: int
    """The number of the first trial of its configuration."""
    role: str
    """`first`, or `repeat` or `confirmation` of its configuration, with a seed of its own among `values`."""
    standing: Standing | None
    """Of the first run of a configuration: its mean over seeds; None where it has but one."""
    is_chosen: bool
    """Whether `tune.choose` takes it."""
    is_front: bool | None
    """Whether it is on the Pareto front; None with one objective."""

    @property
    def seed(self) -> int | None:
        """The seed of its own; None if it is the spec's `train.seed`."""
        return self.values.get(SEED)

    @property
    def whose(self) -> str:
        """Which configuration it runs once more, and on which seed; empty of a first run."""
        if self.role == FIRST:
            return ""
        return f"{'repeats' if self.role == REPEAT else 'confirms'} trial {self.configuration} on seed {self.seed}"

    @property
    def progress(self) -> str:
        """What has been trained of it, in percent."""
        return f"{math.floor(100 * self.share + 1e-9)} %"


def rows(state: SearchState) -> list[Row]:
    """A row for each trial, best first, and the one that `tune.choose` takes before all others."""
    by_number = {trial.number: trial for trial in state.trials}
    return [row(state, trial, by_number) for trial in state.ranked]


def row(state: SearchState, trial: Trial, by_number: Mapping[int, Trial]) -> Row:
    """The row of one trial."""
    seconds = sum(score.seconds for score in trial.scores)
    price, best = state.gang_hour_price, best_score(trial, state.objectives)
    return Row(
        number=trial.number,
        state=state_of(trial, state),
        reason=one_line(trial.error or trial.stopped or ""),
        values=trial.values,
        share=trial.share,
        steps=own_steps(trial, by_number),
        repeated_steps=state.repeated_steps.get(trial.number, 0),
        seconds=seconds,
        cost=None if price is None else seconds / 3600 * price,
        origin=trial.origin,
        past=past_of(trial, by_number),
        best=best.metrics if best else {},
        last=trial.scores[-1].metrics if trial.scores else {},
        configuration=trial.configuration,
        role=FIRST if trial.configuration == trial.number else REPEAT if trial.confirms is None else CONFIRMATION,
        standing=state.verdict.of.get(trial.number) if state.verdict else None,
        is_chosen=state.chosen is not None and trial.number == state.chosen.number,
        is_front=trial.number in state.front if len(state.objectives) > 1 else None,
    )


def past_of(trial: Trial, by_number: Mapping[int, Trial]) -> Schedule:
    """What led to its weights with other values than it has now, across all trials whose weights were taken over."""
    if not trial.past and (trial.origin is None or trial.origin.trial not in by_number):
        return ()
    return [one for one in schedule_in(by_number, trial.number) if one[1] != trial.values]


def state_of(trial: Trial, state: SearchState) -> str:
    """One of STATES."""
    return outcome(trial, state.running)


def own_steps(trial: Trial, by_number: Mapping[int, Trial]) -> int:
    """Steps that the trial itself was trained.

    Less than its last validation's step where it began from another trial's checkpoint; one that took over weights on
    its way (population based training) has validations from before.
    """
    if not trial.scores:
        return 0
    origin, first = trial.origin, trial.scores[0]
    if origin is None or first.share <= origin.share or origin.trial not in by_number:
        return trial.scores[-1].step
    before = (score.step for score in by_number[origin.trial].scores if score.share <= origin.share)
    return trial.scores[-1].step - max(before, default=0)


def best_score(trial: Trial, objectives: Sequence[Objective]) -> Score | None:
    """The trial's best validation, the earliest one of equals; None if none has finite values."""
    best = min(trial.lasting, key=lambda score: point(score, objectives), default=None)
    return None if best is None or math.isinf(point(best, objectives)[0]) else best


def one_line(text: str) -> str:
    """A text in one line: white space as single spaces, and no control characters, which a terminal would execute."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
