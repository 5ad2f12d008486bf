"""What to train next, by logical time: each decision sees the results of a fixed set of earlier works.

Works are numbered in the order in which they are decided. Decision k sees the results of all works but the last `lag`,
taken in by their numbers, whoever was quicker: so a seed gives one search, with one gang or many, and after any kill.
Where these results leave nothing to do, the next ones are taken in, one by one. Without a lag, a decision sees whatever
is there, which is faster and not repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from heliostat.tune.patience import Patience
from heliostat.tune.ranking import is_again
from heliostat.tune.reruns import NONE, Reruns
from heliostat.tune.schedulers.left import training_left
from heliostat.tune.trials import Begin, Continue, Origin, Score, Trial, as_before_failing, go_on
from heliostat.tune.work import Result, Work


class Scheduler(Protocol):
    """Decides how far trials are trained."""

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> Begin | Continue | None:
        """What to do next, given these results; None: nothing before there are more of them."""


class Searcher(Protocol):
    """Proposes values."""

    def propose(self, trials: Sequence[Trial], number: int) -> Mapping[str, Any] | None:
        """The values of trial `number`, given these results; None if the space is used up."""


class _Nobody:
    """Decides and proposes nothing."""

    def decide(self, trials: Sequence[Trial], may_begin: bool) -> None:
        return None

    def propose(self, trials: Sequence[Trial], number: int) -> None:
        return None


class Decisions:
    """The works of a search so far, what has come of them, and what comes next."""

    def __init__(
        self,
        scheduler: Scheduler,
        searcher: Searcher,
        trials: int,
        lag: int | None,
        reruns: Reruns = NONE,
        patience: Patience | None = None,
    ) -> None:
        """`trials` is the most configurations there may be, clones apart.

        Without a `lag`, decisions see all that has arrived.
        """
        self._scheduler, self._searcher, self._most, self._lag = scheduler, searcher, trials, lag
        self._reruns, self._patience = reruns, patience
        self._is_closed = False
        self.works: list[Work] = []
        self.results: dict[int, Result] = {}
        """By the number of the work, in the order of arrival."""
        self.is_over = False
        """Whether nothing is left to do or to wait for."""
        self.is_used_up = False
        """Whether every configuration of the space has been proposed."""
        self._trials: list[Trial] = []
        self._begun = 0
        self._taken_in: set[int] = set()
        self._fresh: list[int] = []

    @classmethod
    def to_read(cls) -> Decisions:
        """For what was decided before, where nothing more is."""
        return cls(_Nobody(), _Nobody(), 0, None)

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials as the next decision sees them."""
        return self._trials

    @property
    def has_lag(self) -> bool:
        """Whether decisions see results in a fixed order."""
        return self._lag is not None

    @property
    def wanted(self) -> int:
        """How many trials there will be, clones and further runs of configurations among them."""
        return len(self._trials) + (0 if self._is_closed else self._reruns.to_begin(self._trials, self._unbegun))

    def left(self, trials: Sequence[Trial]) -> float:
        """What is likely to be trained yet, in full trials; `trials` are all of them as they are now."""
        if self.is_over:
            return 0.0
        table = self._reruns.table(trials)
        searched = training_left(self._scheduler, table, len(table) + self._unbegun)
        return searched * self._reruns.runs + (0.0 if self._is_closed else self._reruns.confirmations_left(trials))

    @property
    def note(self) -> str:
        """Why there will be fewer trials than were asked for; empty if there may be as many."""
        if self._begun >= self._most:
            return ""
        if self.is_used_up:
            return f"tune.space: all of its {self._begun} configurations are tried"
        if self._patience and self._patience.is_used_up:
            return f"tune.patience: none of the last {self._patience.trials} trials was better than those before"
        return ""

    @property
    def _unbegun(self) -> int:
        """Configurations that are still to begin."""
        return self._most - self._begun if self._may_begin else 0

    @property
    def _may_begin(self) -> bool:
        return self._begun < self._most and not self.is_used_up and not (self._patience and self._patience.is_used_up)

    @property
    def open_works(self) -> list[Work]:
        """The works without a result."""
        return [work for work in self.works if work.number not in self.results]

    def arrived(self, result: Result) -> None:
        """Notes a result; it counts when its turn has come."""
        self.results[result.work] = result

    def next(self) -> Work | None:
        """The next work; None while results are awaited, and once the search is over."""
        if not self._take_in_due():
            return None
        while (work := self._decide()) is None:
            if len(self._taken_in) == len(self.works):
                self.is_over = True
                return None
            if not self._take_in_next():
                return None
        self._add(work)
        return work

    def replay(self, work: Work) -> None:
        """Takes a decision that was made before, and the results that it saw."""
        for number in work.seen:
            self._take_in(number)
        self._add(work)

    def stop(self, trial: int, reason: str) -> None:
        """From the next decision on, the trial does not go on."""
        self._trials[trial] = replace(self._trials[trial], stopped=reason)

    def clone(self, origin: Origin, values: Mapping[str, Any], until: float) -> Work:
        """The work of a new trial with these values, which starts from where `origin` was."""
        work = Work(len(self.works), len(self._trials), values, until, origin, tuple(self._fresh))
        self._add(work)
        return work

    def retry(self) -> list[Work]:
        """The works by which all trials that have failed go on; from now on, no new trials are begun."""
        self._most, self._is_closed = self._begun, True
        return [self._again(trial.number) for trial in self.current({}) if trial.error and not trial.stopped]

    def _again(self, number: int) -> Work:
        last = [work for work in self.works if work.trial == number][-1]
        if last.number not in self._taken_in:
            self._take_in(last.number)
        origin = None if self.results[last.number].scores else last.origin
        work = replace(last, number=len(self.works), origin=origin, seen=tuple(self._fresh), again=True)
        self._add(work)
        return work

    def current(self, under_way: Mapping[int, Sequence[Score]]) -> list[Trial]:
        """The trials with all results that have arrived, whether their turn has come or not.

        `under_way` has the scores of works without a result, by their numbers.
        """
        trials = list(self._trials)
        for number, result in self.results.items():
            if number not in self._taken_in:
                trial = self.works[number].trial
                trials[trial] = _with_result(trials[trial], result)
        for number, scores in under_way.items():
            if scores:
                trial = self.works[number].trial
                trials[trial] = replace(trials[trial], scores=(*trials[trial].scores, *scores))
        return trials

    def steps_again(self) -> dict[int, int]:
        """Trial -> optimizer steps that were trained once more after a loss."""
        found: dict[int, int] = {}
        for number, result in self.results.items():
            trial = self.works[number].trial
            found[trial] = found.get(trial, 0) + result.steps_again
        return found

    def micro_batch(self, trial: int) -> int | None:
        """The most records in a micro-batch of a trial for which memory has run out; None if it has not."""
        of_trial = (result for number, result in self.results.items() if self.works[number].trial == trial)
        return min((result.micro_batch for result in of_trial if result.micro_batch), default=None)

    def _take_in_due(self) -> bool:
        """Takes in what the next decision has to see; whether all of that was there."""
        if self._lag is None:
            for number in [number for number in self.results if number not in self._taken_in]:
                self._take_in(number)
            return True
        while len(self._taken_in) < len(self.works) - self._lag:
            if not self._take_in_next():
                return False
        return True

    def _take_in_next(self) -> bool:
        """Takes in the result of the first work that has not been taken in; whether it was there."""
        waiting: Iterator[int] = (work.number for work in self.works if work.number not in self._taken_in)
        number = next(waiting)
        if number not in self.results:
            return False
        self._take_in(number)
        return True

    def _take_in(self, number: int) -> None:
        trial = self.works[number].trial
        self._trials[trial] = _with_result(self._trials[trial], self.results[number])
        self._taken_in.add(number)
        self._fresh.append(number)
        if self._patience and not is_again(self._trials[trial]):
            self._patience.take(self._trials[trial])

    def _decide(self) -> Work | None:
        if again := self._reruns.repeat(self._trials, may_begin=not self._is_closed):
            return self._numbered(again)
        table = self._reruns.table(self._trials)
        decision = self._scheduler.decide(table, self._may_begin)
        number, seen = len(self.works), tuple(self._fresh)
        if isinstance(decision, Continue):
            values = decision.values or self._trials[decision.trial].values
            return Work(number, decision.trial, values, decision.until, decision.origin, seen)
        if decision is None:
            again = None if self._is_closed or not self._is_searched() else self._reruns.confirmation(self._trials)
            return self._numbered(again) if again else None
        proposed = self._searcher.propose(table, len(table))
        if proposed is None:
            self.is_used_up = True
            return self._decide()
        return Work(number, len(self._trials), proposed, decision.until, None, seen)

    def _is_searched(self) -> bool:
        """Whether all results of the search itself have been taken in, apart from those that confirm it."""
        search = (work.number for work in self.works if self._trials[work.trial].confirms is None)
        return self._taken_in.issuperset(search)

    def _numbered(self, work: Work) -> Work:
        return replace(work, number=len(self.works), seen=tuple(self._fresh))

    def _add(self, work: Work) -> None:
        self._fresh = []
        self.works.append(work)
        self.is_over = False
        if work.trial == len(self._trials):
            trial = Trial(
                work.trial,
                work.values,
                work.until,
                origin=work.origin,
                repeats=work.repeats,
                confirms=work.confirms,
            )
            self._begun += work.origin is None and trial.configuration == trial.number  # a clone is one more
            self._trials.append(trial)
        elif work.again:
            self._trials[work.trial] = as_before_failing(self._trials[work.trial])
        else:
            before = self._trials[work.trial]
            values = {} if work.values == before.values else work.values
            self._trials[work.trial] = go_on(before, Continue(work.trial, work.until, work.origin, values))


def _with_result(trial: Trial, result: Result) -> Trial:
    return replace(trial, scores=(*trial.scores, *result.scores), error=result.error)
