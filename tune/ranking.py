"""The one meaning of "best": which of two trials is better, whoever asks.

A trial is compared by the share of it that was trained, then by its best validation until there. With several
objectives the best validation is that of the first objective, and the others count as measured at it: a model has to be
able to show all of them at once.

A configuration with runs on several seeds is compared by their mean, and those that were run again after the search
come first, by the mean of these new runs alone: the best of many single runs were lucky, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from heliostat.tune import dominance
from heliostat.tune.dominance import Point
from heliostat.tune.trials import SEED, Objective, Score, Trial

Outcome = Literal["waiting", "training", "paused", "finished", "stopped", "failed"]
ENDED: tuple[Outcome, ...] = ("finished", "stopped", "failed")

NEAR = 1e-9
"""Shares that differ by less are the same: a third of three is not always one."""


def point(score: Score, objectives: Sequence[Objective]) -> Point:
    """The values of a validation, less being better in each; infinite in all if one of them is no finite number."""
    values = []
    for objective in objectives:
        value = score.metrics.get(objective.metric, math.nan)
        if not math.isfinite(value):
            return (math.inf,) * len(objectives)
        values.append(value if objective.mode == "min" else -value)
    return tuple(values)


def best_point(trial: Trial, objectives: Sequence[Objective], share: float = 1.0) -> Point:
    """The best validation of the trial until it reached `share`; infinite if none has finite values."""
    points = [point(score, objectives) for score in trial.lasting if score.share <= share + NEAR]
    return min(points, default=(math.inf,) * len(objectives))


def is_lost(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether the trial can never be the best: it failed, or its last validation is no finite number."""
    return bool(trial.error) or (bool(trial.scores) and math.isinf(point(trial.scores[-1], objectives)[0]))


def best_first(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials, best first: those that reached a greater share, then by value; failed ones last; ties by number.

    With several objectives value means the non-dominated front, then crowding. Those that were never validated come
    before those that failed. The runs of a configuration stand together, the first one in front.
    """
    trials = list(trials)
    if not any(map(is_again, trials)):
        return _ordered(trials, objectives)
    runs = {one.number: [*one.runs, *one.confirmations] for one in configurations(trials)}
    return [run for one in means(trials, objectives) for run in runs[one.number]]


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration, each by number."""

    number: int
    """Of its first trial."""
    runs: Sequence[Trial]
    """Of the search: the first trial and its repeats."""
    confirmations: Sequence[Trial]
    """After the search."""

    def on(self, seeds: Iterable[int]) -> list[Trial]:
        """The confirmations on these seeds."""
        by_seed = {run.values[SEED]: run for run in self.confirmations}
        return [by_seed[seed] for seed in seeds]


def configurations(trials: Iterable[Trial]) -> list[Configuration]:
    """The configurations by the number of their first trials."""
    runs: dict[int, tuple[list[Trial], list[Trial]]] = {}
    for trial in sorted(trials, key=lambda one: one.number):
        runs.setdefault(trial.configuration, ([], []))[trial.confirms is not None].append(trial)
    return [Configuration(number, *found) for number, found in sorted(runs.items())]


def means(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """A trial for each configuration, best first, with the means of the runs that it is compared by."""
    return [one for group in groups(list(trials), objectives) for one in _ordered(group, objectives)]


def seeds_of_all(found: Sequence[Configuration], objectives: Sequence[Objective]) -> list[int]:
    """The seeds on which every configuration that is run again has ended: by these alone they are compared."""
    ended = [
        {run.values[SEED] for run in one.confirmations if outcome(run) in ENDED or is_lost(run, objectives)}
        for one in found
        if one.confirmations
    ]
    return sorted(set.intersection(*ended)) if ended else []


def groups(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Sequence[Trial]]:
    """The configurations as one trial each, in groups, best first: the confirmed by failed runs, then the others."""
    if not any(map(is_again, trials)):
        return [trials]
    found = configurations(trials)
    seeds, repeats = seeds_of_all(found, objectives), max(len(one.runs) for one in found)
    by_failed: dict[float, list[Trial]] = {}
    for one in found:
        again = one.on(seeds) if one.confirmations else []
        whole = [run for run in again if is_whole(run, objectives)]
        failed = len(again) - len(whole) if whole else math.inf
        runs, least = (whole or again, 1) if again else (one.runs or one.confirmations, repeats)
        by_failed.setdefault(failed, []).append(_as_first(one.number, mean(runs, objectives, least)))
    return [by_failed[failed] for failed in sorted(by_failed)]


def is_whole(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether the trial was trained to its end, with a finite value there."""
    return trial.share > 1 - NEAR and not is_lost(trial, objectives)


def _as_first(number: int, trial: Trial) -> Trial:
    """The trial as if it were the first of its configuration."""
    values = {key: value for key, value in trial.values.items() if key != SEED}
    return replace(trial, number=number, values=values, repeats=None, confirms=None)


def mean(runs: Sequence[Trial], objectives: Sequence[Objective], expected: int = 1) -> Trial:
    """The runs of a configuration as one trial, the first of them; itself where it is the only one.

    Its validations, at the shares that all runs have reached, have the means of the runs' best validations until there;
    there are none while `expected` runs have not begun. It failed if one of them did.
    """
    first, *others = runs
    if not others and (expected == 1 or first.origin):
        return first
    courses = [_best_so_far(run, objectives) for run in runs] if len(runs) >= expected else []
    return replace(
        first,
        scores=tuple(map(_mean_score, zip(*courses, strict=False))),
        error=next((run.error or "not finite" for run in runs if is_lost(run, objectives)), None),
        stopped=next((run.stopped for run in runs if run.stopped), None),
    )


def _best_so_far(trial: Trial, objectives: Sequence[Objective]) -> list[Score]:
    """The trial's validations, each with the metrics of the best until there."""
    found: list[Score] = []
    best: Mapping[str, float] = {}
    least: Point | None = None
    for score in trial.scores:
        here = point(score, objectives)
        if least is None or here < least:
            least, best = here, score.metrics
        found.append(replace(score, metrics=best))
    return found


def _mean_score(scores: Sequence[Score]) -> Score:
    first = scores[0]
    names = [name for name in first.metrics if all(name in one.metrics for one in scores)]
    metrics = {name: sum(one.metrics[name] for one in scores) / len(scores) for name in names}
    return replace(first, metrics=metrics, seconds=sum(one.seconds for one in scores))


def is_again(trial: Trial) -> bool:
    """Whether the trial runs the configuration of another one once more."""
    return trial.repeats is not None or trial.confirms is not None


def _ordered(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Trials that are compared one by one, best first."""
    usable: dict[float, list[Trial]] = {}
    last: list[Trial] = []
    for trial in sorted(trials, key=lambda one: one.number):
        if is_lost(trial, objectives) or not trial.scores:
            last.append(trial)
        else:
            usable.setdefault(round(trial.share / NEAR), []).append(trial)
    found: list[Trial] = []
    for share in sorted(usable, reverse=True):
        group = usable[share]
        found += [group[index] for index in dominance.order([best_point(one, objectives) for one in group])]
    return found + sorted(last, key=lambda one: (is_lost(one, objectives), one.number))


def pareto_front(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Those that no other trial is better than in all objectives, by number; among those trained furthest only.

    With several runs of a configuration these are as `means` has them, among those with new runs if there are any.
    """
    best = next(iter(groups(list(trials), objectives)), [])
    usable = sorted(
        (trial for trial in best if trial.scores and not is_lost(trial, objectives)), key=lambda one: one.number
    )
    furthest = max((trial.share for trial in usable), default=0.0)
    usable = [trial for trial in usable if trial.share > furthest - NEAR]
    fronts = dominance.fronts([best_point(trial, objectives) for trial in usable])
    return [usable[index] for index in fronts[0]] if fronts else []


def outcome(trial: Trial, on_gangs: Collection[int] | None = None) -> Outcome:
    """What has become of a trial.

    `on_gangs` are the numbers of those that a gang has: others that are to be trained wait. If omitted, all have one.
    """
    if trial.error:
        return "failed"
    if trial.share > 1 - NEAR:
        return "finished"
    if trial.stopped:
        return "stopped"
    if not trial.is_training:
        return "paused" if trial.scores else "waiting"
    return "training" if on_gangs is None or trial.number in on_gangs else "waiting"
