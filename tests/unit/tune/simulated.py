"""A search without training: synthetic trials on gangs of random speeds, and the driver's rule of who knows what when.

Decision k sees the results of jobs 0 … k-1-lag, numbered in the order of decisions. If the scheduler says None, the
next result is waited for and it is asked again. Results come when gangs are done, and are delivered in order.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from heliostat.tune.schedulers.base import Scheduler
from heliostat.tune.schedulers.median import next_validation
from heliostat.tune.trials import Begin, Continue, Origin, Score, Trial, go_on


class Problem(Protocol):
    """What is trained. A state stands for weights: it can be kept, and gone on with."""

    def propose(self, number: int) -> dict[str, Any]:
        """The values of a trial."""
        ...

    def start(self, number: int) -> Any:
        """The state before any training."""
        ...

    def train(self, state: Any, values: Mapping[str, Any], number: int, start: float, end: float) -> tuple[Any, float]:
        """Trains between two shares; the new state and the loss there, NaN if it diverged."""
        ...


@dataclass
class Simulation:
    """A search that can be run once."""

    scheduler: Scheduler
    problem: Problem
    trials: int
    grace: float
    gangs: int = 1
    lag: int = 1
    speeds: random.Random = field(default_factory=lambda: random.Random(0))
    on_decision: Callable[[list[Trial], Begin | Continue | None], None] = lambda trials, decision: None

    table: list[Trial] = field(default_factory=list)
    decisions: list[Begin | Continue] = field(default_factory=list)
    results: list[Trial] = field(default_factory=list)
    """By job: the trial as it was after it."""
    arrivals: list[int] = field(default_factory=list)
    """The jobs as they were done."""
    delivered: int = 0
    trained: float = 0.0
    """Shares, over all trials."""
    seconds: float = 0.0
    idle: float = 0.0
    """Part of the gangs' time in which they waited."""
    _states: dict[tuple[int, float], Any] = field(default_factory=dict)
    _running: list[tuple[float, int]] = field(default_factory=list)

    def run(self) -> Simulation:
        """Until the scheduler has nothing more to do."""
        busy = 0.0
        while True:
            while len(self._running) >= self.gangs:
                self._finish_one()
            decision = self._decide()
            if decision is None:
                break
            duration = self._start(decision) * self.speeds.lognormvariate(0, 0.7)
            busy += duration
            heapq.heappush(self._running, (self.seconds + duration, len(self.decisions) - 1))
        self.idle = 1 - busy / (self.gangs * self.seconds) if self.seconds else 0.0
        return self

    def _decide(self) -> Begin | Continue | None:
        """The next decision, with all waiting that it needs."""
        self._deliver(len(self.decisions) - self.lag)
        while True:
            decision = self.scheduler.decide(list(self.table), len(self.table) < self.trials)
            self.on_decision(list(self.table), decision)
            if decision is not None or self.delivered == len(self.decisions):
                return decision
            self._deliver(self.delivered + 1)

    def _deliver(self, jobs: int) -> None:
        """Until the results of so many jobs are known."""
        while self.delivered < jobs:
            while self.delivered not in self.arrivals:
                self._finish_one()
            result = self.results[self.delivered]
            self.table[result.number] = result
            self.delivered += 1

    def _finish_one(self) -> None:
        self.seconds, job = heapq.heappop(self._running)
        self.arrivals.append(job)

    def _start(self, decision: Begin | Continue) -> float:
        """Enters the decision and computes its result; returns the share that it trains."""
        self.decisions.append(decision)
        if isinstance(decision, Begin):
            number = len(self.table)
            self.table.append(Trial(number, self.problem.propose(number), decision.until))
            state = self.problem.start(number)
        else:
            number, before = decision.trial, self.table[decision.trial]
            assert not before.is_training
            assert not before.error
            assert before.share < decision.until <= 1
            origin = decision.origin or Origin(number, before.share)
            state = self._states[origin.trial, origin.share]
            self.table[number] = go_on(before, decision)
        trial = self._trained(self.table[number], state)
        self.results.append(trial)
        self.trained += trial.share - self.table[number].share
        return trial.share - self.table[number].share

    def _trained(self, trial: Trial, state: Any) -> Trial:
        """The trial at the end of its job, or where it diverged."""
        scores = list(trial.scores)
        share = trial.share
        while share < trial.until:
            end = next_validation(share, self.grace)
            state, loss = self.problem.train(state, trial.values, trial.number, share, end)
            self._states[trial.number, end] = state
            scores.append(Score(end, round(1000 * end), {"loss": loss}))
            if not math.isfinite(loss):
                return replace(trial, scores=tuple(scores), error="loss: not finite")
            share = end
        return replace(trial, scores=tuple(scores))


@dataclass
class PowerLaws:
    """Learning curves error(t) = c + a·t^-b, with noise.

    pow3 in Domhan, Springenberg, Hutter: "Speeding Up Automatic Hyperparameter Optimization of Deep Neural Networks by
    Extrapolation of Learning Curves", 2015. All begin with the same error, at t = 1 of `steps`; what is reached in the
    end and how fast are independent, so curves cross.
    """

    seed: int
    steps: float = 1000.0
    noise: float = 0.005
    """Standard deviation of a validation's error."""
    diverging: float = 0.1
    """Part of the configurations that diverge at a random share."""
    are_winners_slow: bool = False
    """Whether those that end lowest come there slowest, with some scatter: the hard case for early decisions."""

    def propose(self, number: int) -> dict[str, Any]:
        draw = self._draw(number)
        floor, power = draw.uniform(0.05, 0.4), draw.uniform(0.3, 1.0)
        if self.are_winners_slow:
            power = 0.3 + 0.7 * min(max((floor - 0.05) / 0.35 + draw.gauss(0, 0.2), 0.0), 1.0)
        diverges = draw.random() < self.diverging
        return {"floor": floor, "power": power, "diverges_at": draw.random() if diverges else 2.0}

    def start(self, number: int) -> None:
        return None

    def train(
        self, state: None, values: Mapping[str, Any], number: int, start: float, end: float
    ) -> tuple[None, float]:
        if end >= values["diverges_at"]:
            return None, math.nan
        return None, self.error(values, end) + self._draw(number, end).gauss(0, self.noise)

    def error(self, values: Mapping[str, Any], share: float) -> float:
        """Without noise."""
        return float(values["floor"] + (0.9 - values["floor"]) * (share * self.steps) ** -values["power"])

    def _draw(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed}:{what}")


@dataclass
class Quadratic:
    """The example of Jaderberg et al. 2017, figure 2.

    Q = 1.2 - (θ0² + θ1²) is to be maximised along the gradient of 1.2 - (h0·θ0² + h1·θ1²). With h = (1, 0) or (0, 1),
    as here by turns, only one of the two ever falls; trials that take over weights, and change h, come near 1.2.
    """

    steps: int = 200
    rate: float = 0.01

    def propose(self, number: int) -> dict[str, Any]:
        return {"h0": 1.0 - number % 2, "h1": float(number % 2)}

    def start(self, number: int) -> tuple[float, float]:
        return 0.9, 0.9

    def train(
        self, state: tuple[float, float], values: Mapping[str, Any], number: int, start: float, end: float
    ) -> tuple[tuple[float, float], float]:
        steps = round(end * self.steps) - round(start * self.steps)
        first, second = (
            theta * (1 - 2 * self.rate * h) ** steps
            for theta, h in zip(state, (values["h0"], values["h1"]), strict=True)
        )
        return (first, second), first**2 + second**2 - 1.2


@dataclass
class FallingRate:
    """A loss that falls fastest at a learning rate that itself falls by a factor of 100 over a trial.

    log loss falls by at most `fall` over a trial; at a rate that is off by a factor e from the best it falls e^-1 as
    fast. A fixed rate is right for a part of the time only, which is what schedules are for.
    """

    seed: int
    fall: float = 5.0
    noise: float = 0.01

    def propose(self, number: int) -> dict[str, Any]:
        return {"rate": math.exp(random.Random(f"{self.seed}:{number}").uniform(math.log(1e-4), math.log(1e-1)))}

    def start(self, number: int) -> float:
        return 0.0

    def train(
        self, state: float, values: Mapping[str, Any], number: int, start: float, end: float
    ) -> tuple[float, float]:
        best = 1e-1 * 10 ** -(start + end)
        state -= self.fall * (end - start) * math.exp(-(math.log(values["rate"] / best) ** 2))
        noise = random.Random(f"{self.seed}:{number}:{end}").gauss(1, self.noise)
        return state, math.exp(state) * noise
