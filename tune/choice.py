"""Which trial of a search is taken: one rule for the winner, `--from-search`, tables, files and pages alike.

    first             the best in the first objective
    knee              that of the Pareto front which lies farthest from the plane through the front's ends
    {metric: {max}}   the best in the first objective of those that keep all bounds

The knee is that of Das, "On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection", 1999,
with objectives scaled to the front's ranges, where the farthest point is that of the least sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from heliostat.tune.dominance import Point
from heliostat.tune.ranking import best_first, best_point, groups, is_again, is_lost, pareto_front
from heliostat.tune.space.values import is_number
from heliostat.tune.trials import Objective, Trial

Rule = str | Mapping[str, Mapping[str, float]]
"""`first`, `knee`, or metric -> `{"max": …}` where less is better, `{"min": …}` where more is."""


def check_shape(rule: Any) -> None:
    """Raises ValueError for what is no rule at all, whatever the objectives are."""
    if rule in ("first", "knee"):
        return
    if not isinstance(rule, dict) or not rule:
        raise ValueError("first, knee, or bounds of metrics such as {latency_ms: {max: 20}} are allowed")
    for metric, bound in rule.items():
        is_bound = isinstance(bound, dict) and list(bound) in (["max"], ["min"])
        if not is_bound or not all(is_number(one) and math.isfinite(one) for one in bound.values()):
            raise ValueError(f"tune.choose.{metric}: {bound!r} given; {{max: NUMBER}} or {{min: NUMBER}} is allowed")


def check_rule(rule: Rule, objectives: Sequence[Objective]) -> None:
    """Raises ValueError for a bound on what is no objective or on the wrong side, and for a knee of one objective."""
    modes = {one.metric: one.mode for one in objectives}
    if isinstance(rule, str):
        if rule == "knee" and len(modes) == 1:
            raise ValueError("tune.choose: knee given; it is for two objectives or more, and first is allowed")
        return
    for metric, bound in rule.items():
        if metric not in modes:
            raise ValueError(f"tune.choose.{metric}: no objective (tune.objectives: {', '.join(modes)})")
        side = "max" if modes[metric] == "min" else "min"
        if set(bound) != {side}:
            better = "less" if side == "max" else "more"
            raise ValueError(f"tune.choose.{metric}: {dict(bound)} given; {better} is better, {{{side}: …}} is allowed")


def told(rule: Rule) -> str:
    """The rule in a few words."""
    if isinstance(rule, str):
        return rule
    return ", ".join(f"{metric} {side} {value:g}" for metric in rule for side, value in rule[metric].items())


def choose(trials: Sequence[Trial], objectives: Sequence[Objective], rule: Rule = "first") -> Trial | None:
    """The trial that the rule takes; None if none has a usable result, or none keeps the bounds.

    Of those that keep the bounds, the ones that were trained furthest count. A configuration with several runs stands
    as its first trial with their means, and those that were run again after the search come before all others.
    """
    for group in _candidates(trials, objectives):
        kept = [trial for trial in group if not _excess(trial, objectives, rule)]
        if kept:
            return _taken(kept, objectives, rule)
    return None


def _taken(kept: Sequence[Trial], objectives: Sequence[Objective], rule: Rule) -> Trial:
    if len(objectives) == 1:
        return best_first(kept, objectives)[0]
    front = pareto_front(kept, objectives)
    points = {trial.number: best_point(trial, objectives) for trial in front}
    sums = _scaled_sums(list(points.values())) if rule == "knee" else [0.0] * len(front)
    ranked = sorted(zip(sums, front, strict=True), key=lambda one: (one[0], points[one[1].number], one[1].number))
    return ranked[0][1]


def unmet(trials: Sequence[Trial], objectives: Sequence[Objective], rule: Rule) -> str:
    """Why no trial keeps the bounds, with the nearest one, in a line; empty if one does, or none has a result."""
    usable = [trial for group in _candidates(trials, objectives) for trial in group]
    if isinstance(rule, str) or not usable or choose(trials, objectives, rule):
        return ""
    nearest = min(usable, key=lambda one: (_excess(one, objectives, rule), one.number))
    values = dict(zip((one.metric for one in objectives), _values(nearest, objectives), strict=True))
    found = ", ".join(f"{metric} {values[metric]:.4g}" for metric in rule)
    return (
        f"tune.choose: {told(rule)} given, and no trial keeps that; the nearest is trial {nearest.number} with {found}"
    )


def _candidates(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[list[Trial]]:
    """Groups of trials, each before those after it; first runs alone where no configuration has all of its runs."""
    found = [_usable(group, objectives) for group in groups(trials, objectives)]
    return found if any(found) else [_usable([one for one in trials if not is_again(one)], objectives)]


def _usable(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    return [trial for trial in trials if trial.scores and not is_lost(trial, objectives)]


def _values(trial: Trial, objectives: Sequence[Objective]) -> list[float]:
    point = best_point(trial, objectives)
    return [value if one.mode == "min" else -value for one, value in zip(objectives, point, strict=True)]


def _excess(trial: Trial, objectives: Sequence[Objective], rule: Rule) -> float:
    """By how much the trial is beyond the bounds, relative to each and in all; 0 if it keeps them."""
    if isinstance(rule, str):
        return 0.0
    values = dict(zip((one.metric for one in objectives), _values(trial, objectives), strict=True))
    beyond = [
        max(0.0, values[metric] - bound if side == "max" else bound - values[metric]) / (abs(bound) or 1.0)
        for metric in rule
        for side, bound in rule[metric].items()
    ]
    return sum(beyond)


def _scaled_sums(front: Sequence[Point]) -> list[float]:
    """The sums of each point's coordinates, scaled to [0, 1] over the front."""
    lows, highs = ([pick(axis) for axis in zip(*front, strict=True)] for pick in (min, max))
    return [
        math.fsum((x - low) / (high - low) for x, low, high in zip(one, lows, highs, strict=True) if high > low)
        for one in front
    ]
