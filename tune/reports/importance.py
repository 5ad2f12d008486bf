"""How much each key of the space matters for which trials are best, by Optuna's evaluators, and how sure that is.

Trials are compared by their places among all, best first: one that was stopped early counts as worse than those that
went on, one that failed as the worst, and a loss that exploded no more than any other bad one.

Shares add up to one even where nothing matters. So each evaluator is also asked about the same trials with their places
dealt out anew: a key that does not get more than in each of those deals is not told from chance.
"""

from __future__ import annotations

import copy
import json
import math
import random
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.infra.errors import ConfigError
from heliostat.tune.ranking import is_lost, means
from heliostat.tune.state import PageState, SearchState
from heliostat.tune.trials import Trial

PED_ANOVA, FANOVA = EVALUATORS = ("ped-anova", "fanova")
LEAST_TRIALS = 10
"""Fewer say nothing: a key that does nothing would look as good as any."""
LEAST_BEST = 5
"""Trials that PED-ANOVA needs among the best (its documentation), which are a tenth of all otherwise."""
SEEDS, DEALS = {PED_ANOVA: 10, FANOVA: 5}, {PED_ANOVA: 20, FANOVA: 10}
"""Resamples of the trials, and deals of their places."""
MOST_TRIALS = {PED_ANOVA: 200, FANOVA: 40}
"""Of all: more take seconds, and change little."""
_TREES = 8


@dataclass(frozen=True)
class Importance:
    """A key's share of what makes trials good, over resamples of the trials."""

    key: str
    mean: float
    low: float
    """The tenth percentile."""
    high: float
    """The ninetieth percentile."""
    is_chance: bool
    """Whether it is no more important than where the places of the trials are dealt out at random."""


@dataclass(frozen=True)
class Importances:
    """The keys, the most important first."""

    evaluator: str
    trials: int
    keys: tuple[Importance, ...] = ()
    note: str = ""
    """What is left out, or why there are none."""

    @property
    def title(self) -> str:
        """The evaluator's name as its authors write it."""
        return {PED_ANOVA: "PED-ANOVA", FANOVA: "fANOVA"}[self.evaluator]


def of_page(page: PageState) -> tuple[Importances, ...]:
    """The importances by each evaluator that has any; those of the first, with its note, where none has."""
    first, *others = (importances(page.search, page.logarithmic, page.categorical, one) for one in EVALUATORS)
    return (first, *(one for one in others if one.keys))


def importances(
    state: SearchState,
    logarithmic: Collection[str] = (),
    categorical: Collection[str] = (),
    evaluator: str = PED_ANOVA,
) -> Importances:
    """The importances of the searched keys; none, and a note, where the trials are too few to say.

    PED-ANOVA (Watanabe et al. 2023) or fANOVA (Hutter et al. 2014), each over bootstrap resamples with fixed seeds.
    Raises ConfigError for another evaluator.
    """
    if evaluator not in EVALUATORS:
        raise ConfigError(f"evaluator: {evaluator!r} given; allowed: {', '.join(EVALUATORS)}")
    ranked = [one for one in means(state.trials, state.objectives) if one.error or not one.is_training]
    valued = sum(not is_lost(one, state.objectives) and bool(one.scores) for one in ranked)
    if valued < LEAST_TRIALS:
        why = f"{LEAST_TRIALS} trials or more with a value are needed; there {'is' if valued == 1 else 'are'} {valued}."
        return Importances(evaluator, len(ranked), note=why)
    distributions = {key: _distribution(key, ranked, logarithmic, categorical) for key in state.searched}
    varied = {key: one for key, one in distributions.items() if one is not None}
    if evaluator == FANOVA:
        varied = {key: one for key, one in varied.items() if all(key in trial.values for trial in ranked)}
    left_out = [key for key in state.searched if key not in varied]
    why = "had one value only" if evaluator == PED_ANOVA else "had one value only, or no value in some trials"
    note = f"Left out: {', '.join(left_out)}, which {why}." if left_out else ""
    if len(varied) < 2:
        return Importances(evaluator, len(ranked), note=f"There is nothing to compare. {note}".strip())
    trials = _told(ranked, varied, MOST_TRIALS[evaluator])
    deals = [_evaluated(_dealt(trials, seed), varied, evaluator, seed) for seed in range(DEALS[evaluator])]
    once = _evaluated(trials, varied, evaluator, 0)
    samples = [_evaluated(_resampled(trials, seed), varied, evaluator, seed) for seed in range(SEEDS[evaluator])]
    found = [_summary(key, samples, is_chance(once[key], [deal[key] for deal in deals])) for key in varied]
    found.sort(key=lambda one: -one.mean)
    return Importances(evaluator, len(ranked), tuple(found), note)


Sample = Mapping[str, float]
"""Key -> its importance as the evaluator gives it."""


def is_chance(importance: float, dealt: Sequence[float]) -> bool:
    """Whether more than one in twenty deals gave a key as much: a permutation test."""
    return sum(one >= importance for one in dealt) > len(dealt) / 20


def _summary(key: str, samples: Sequence[Sample], by_chance: bool) -> Importance:
    shares = sorted(sample[key] / (sum(sample.values()) or 1.0) for sample in samples)
    tail = round(0.1 * (len(shares) - 1))
    return Importance(key, sum(shares) / len(shares), shares[tail], shares[len(shares) - 1 - tail], by_chance)


def _told(ranked: Sequence[Trial], distributions: Mapping[str, Any], most: int) -> list[Any]:
    """The trials as Optuna's, each with its place as its value; of more than `most` so many, evenly over the places."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    count = min(len(ranked), most)
    places = [round(at * (len(ranked) - 1) / (count - 1)) for at in range(count)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials([_trial(ranked[place], place, distributions) for place in places])
    return study.get_trials(deepcopy=False)  # with ids, which evaluators tell them apart by


def _resampled(trials: Sequence[Any], seed: int) -> list[Any]:
    """A bootstrap resample."""
    return random.Random(seed).choices(trials, k=len(trials))


def _dealt(trials: Sequence[Any], seed: int) -> list[Any]:
    """The trials, each with the place of another one."""
    places = [trial.value for trial in trials]
    random.Random(seed).shuffle(places)
    found = [copy.copy(trial) for trial in trials]
    for trial, place in zip(found, places, strict=True):
        trial.value = place
    return found


def _evaluated(trials: Sequence[Any], keys: Iterable[str], evaluator: str, seed: int) -> Sample:
    """The importances in these trials."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.get_trials = lambda **_: trials  # adding them would copy each, which takes longer than the evaluation
    present = sorted({key for trial in trials for key in trial.params})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _evaluator(evaluator, len(trials), seed).evaluate(study, params=present)
    return {key: float(found.get(key, 0.0)) for key in keys}


def _evaluator(name: str, trials: int, seed: int) -> Any:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    if name == FANOVA:
        return FanovaImportanceEvaluator(n_trees=_TREES, seed=seed)
    return PedAnovaImportanceEvaluator(target_quantile=max(0.1, LEAST_BEST / trials))


def _trial(trial: Trial, place: int, distributions: Mapping[str, Any]) -> Any:
    """The trial as Optuna's, with its place among all as its value."""
    from optuna.trial import create_trial

    mine = {key: one for key, one in distributions.items() if key in trial.values}
    params = {key: _param(trial.values[key], is_text=hasattr(one, "choices")) for key, one in mine.items()}
    return create_trial(params=params, distributions=mine, value=float(place))


def _param(value: Any, is_text: bool) -> Any:
    return json.dumps(value, sort_keys=True, default=str) if is_text else float(value)


def _distribution(
    key: str, trials: Sequence[Trial], logarithmic: Collection[str], categorical: Collection[str]
) -> Any | None:
    """The distribution of a key's values, as they were tried; None if they were all the same."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    values = [trial.values[key] for trial in trials if key in trial.values]
    if key in categorical or not all(_is_number(value) for value in values):
        choices = sorted({_param(value, is_text=True) for value in values})
        return CategoricalDistribution(choices) if len(choices) > 1 else None
    low, high = min(map(float, values), default=0.0), max(map(float, values), default=0.0)
    return FloatDistribution(low, high, log=key in logarithmic and low > 0) if low < high else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
