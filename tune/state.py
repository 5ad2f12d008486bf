"""How a search stands: what its tables, files and pages are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from heliostat.tune.choice import Rule, choose, unmet
from heliostat.tune.ranking import best_first, is_again, pareto_front
from heliostat.tune.standing import Verdict, verdict
from heliostat.tune.trials import Objective, Trial


@dataclass(frozen=True)
class SearchState:
    """A search at one moment, or at its end."""

    name: str
    objectives: tuple[Objective, ...]
    """The first is the one that curves show."""
    trials: Sequence[Trial] = ()
    """In the order of their numbers."""
    running: Collection[int] = ()
    """Numbers of the trials that a gang trains now; others that are on their way wait for a gang."""
    elapsed_seconds: float = 0.0
    """That a driver has run, over all resumes."""
    worker_hours: float = 0.0
    """Idle ones too."""
    idle_worker_hours: float = 0.0
    """In which workers had no work."""
    lag: int | None = None
    """Works whose results a decision does not see; None if it sees all that are there."""
    cost: float | None = None
    """Of the worker-hours, USD; None if no price is known."""
    wanted: int = 0
    """Trials that the search is to have."""
    left: float | None = None
    """Training that it is likely to need yet, in full trials; None if that is not known."""
    note: str = ""
    """What it waits for, or why it ended: a line."""
    keys: tuple[str, ...] = ()
    """Of the space, in its order; those of the trials if empty."""
    gang_hour_price: float | None = None
    """What an hour of one gang costs, USD."""
    repeated_steps: Mapping[int, int] = field(default_factory=dict)
    """Trial -> steps that were trained again after a loss."""
    rule: Rule = "first"
    """Which trial is taken."""

    @property
    def objective(self) -> Objective:
        """The first objective."""
        return self.objectives[0]

    @cached_property
    def chosen(self) -> Trial | None:
        """The trial that the rule takes; None if none has a usable result, or none keeps the bounds."""
        return choose(self.trials, self.objectives, self.rule)

    @cached_property
    def unmet(self) -> str:
        """Why there is none though trials have results; empty for other reasons."""
        return unmet(self.trials, self.objectives, self.rule)

    @cached_property
    def front(self) -> frozenset[int]:
        """Numbers of the trials on the Pareto front; none with one objective."""
        if len(self.objectives) == 1:
            return frozenset()
        return frozenset(trial.number for trial in pareto_front(self.trials, self.objectives))

    @cached_property
    def ranked(self) -> list[Trial]:
        """All trials, best first, and the runs of the chosen configuration before them."""
        found = best_first(self.trials, self.objectives)
        return sorted(found, key=lambda one: self.chosen is None or one.configuration != self.chosen.number)

    @cached_property
    def searched(self) -> tuple[str, ...]:
        """The keys of the space; those that any trial has where it is not known."""
        first = (trial for trial in self.trials if not is_again(trial))
        return self.keys or tuple(dict.fromkeys(key for trial in first for key in trial.values))

    @cached_property
    def verdict(self) -> Verdict | None:
        """What runs on several seeds say of the best; None without such runs."""
        return verdict(self.trials, self.objectives)


@dataclass(frozen=True)
class PageState:
    """What the page of a search shows beside its trials."""

    search: SearchState
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Provenance, such as run and data."""
    logarithmic: Collection[str] = ()
    """Keys whose axis is logarithmic."""
    categorical: Collection[str] = ()
    """Keys that have a few values, numbers or not, which are drawn side by side."""
    trial_epochs: float | None = None
    """Epochs of the longest trial."""
    train_epochs: float | None = None
    """Epochs of the run that the winner is for."""
    spec: str = ""
    """The resolved spec as YAML."""
    is_over: bool = False
