"""Population based bandits: PBT whose new values come from a Gaussian process.

Parker-Holder, Nguyen, Roberts: "Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits",
2020. The process models the improvement over an interval from the share, the value before it and the values trained
with; what was measured long ago counts for less (Bogunovic, Scarlett, Cevher: "Time-Varying Gaussian Process Bandit
Optimization", 2016).
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heliostat.tune.dominance import Point
from heliostat.tune.lineage import values_at
from heliostat.tune.ranking import NEAR, point
from heliostat.tune.schedulers.base import Axis
from heliostat.tune.schedulers.explore import inside, is_ordered
from heliostat.tune.schedulers.pbt import Pbt, point_at
from heliostat.tune.trials import Objective, Origin, Trial

if TYPE_CHECKING:
    import numpy as np

MOST_INTERVALS = 200
"""The newest; a fit takes their number cubed."""
CANDIDATES = 1000
Interval = tuple[list[float], float]
"""Where it began (share, value, places of the values trained with), and the improvement per share."""


class Pb2(Pbt):
    """As PBT, but numbers are proposed by a Gaussian process; with several objectives by the first one."""

    def explore(self, trials: Sequence[Trial], donor: Trial, share: float, rng: random.Random) -> Mapping[str, Any]:
        """The ordered axes where the upper confidence bound of the improvement is highest, the rest as PBT."""
        values = dict(super().explore(trials, donor, share, rng))
        axes = {key: axis for key, axis in self.settings.axes.items() if is_ordered(axis) and key in values}
        known = [one for trial in trials for one in intervals(trials, trial, self.settings.objectives, axes)]
        if not axes or len(known) <= len(axes) + 1:
            return values
        known = sorted(known, key=lambda one: one[0][0])[-MOST_INTERVALS:]
        start = [share, -point_at(donor, self.settings.objectives, share)[0]]
        pending = [
            [*start, *places(trial.values, axes)]
            for trial in trials
            if trial.is_training and trial.share > share - NEAR and all(key in trial.values for key in axes)
        ]
        best = propose(known, start, pending, len(axes), rng)
        return {**values, **{key: axes[key].at(place) for key, place in zip(axes, best, strict=True)}}


def places(values: Mapping[str, Any], axes: Mapping[str, Axis]) -> list[float]:
    """Where `values` are on each axis, in [0, 1]."""
    return [inside(axis.place(values[key])) for key, axis in axes.items()]


def intervals(
    trials: Sequence[Trial], trial: Trial, objectives: Sequence[Objective], axes: Mapping[str, Axis]
) -> list[Interval]:
    """What is known of a trial's improvement between validations; those with values missing on an axis are left out."""
    found: list[Interval] = []
    by_number = {one.number: one for one in trials}
    takes = {stretch.until: origin for stretch, origin in zip(trial.past, _origins(trial), strict=True)}
    for before, after in zip(trial.scores, trial.scores[1:], strict=False):
        origin = next((one for at, one in takes.items() if abs(at - before.share) < NEAR), None)
        donor = by_number.get(origin.trial) if origin else None
        start: Point = point_at(donor, objectives, before.share) if donor else point(before, objectives)
        gain = (start[0] - point(after, objectives)[0]) / (after.share - before.share)
        values = values_at(trial, after.share)
        if math.isfinite(gain) and all(key in values for key in axes):
            found.append(([before.share, -start[0], *places(values, axes)], gain))
    return found


def _origins(trial: Trial) -> list[Origin | None]:
    """The weights that the trial went on with at the end of each part of its past."""
    return [*(stretch.origin for stretch in trial.past), trial.origin][1:]


def propose(
    known: Sequence[Interval], start: Sequence[float], pending: Sequence[Sequence[float]], axes: int, rng: random.Random
) -> list[float]:
    """The places in [0, 1] of the best candidate, rounded so that other machines find the same."""
    import numpy as np

    points = np.array([one[0] for one in known])
    gains = np.array([one[1] for one in known])
    drawn = np.random.default_rng(rng.getrandbits(64)).random((CANDIDATES, axes))
    candidates = np.hstack([np.tile(start, (CANDIDATES, 1)), drawn])
    waiting = np.array(pending).reshape(-1, points.shape[1])
    # Share and value are scaled by what was measured; places are in [0, 1] already.
    low = np.concatenate([points[:, :2].min(axis=0), np.zeros(axes)])
    width = np.concatenate([np.ptp(points[:, :2], axis=0) + 1e-8, np.ones(axes)])
    scaled = [(part - low) / width for part in (points, waiting, candidates)]
    bound = _upper_bound(scaled[0], (gains - gains.mean()) / (gains.std() + 1e-8), scaled[1], scaled[2])
    return [round(float(place), 4) for place in drawn[int(bound.argmax())]]


def _upper_bound(points: np.ndarray, gains: np.ndarray, pending: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Mean + √β · standard deviation of the gain at each candidate; β = 0.2 + ln(0.4 · points) as in PB2's code.

    The deviation counts what is in training as measured (Desautels, Krause, Burdick 2014): it needs no results.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # On one thread, so that sums have the same order on every machine; the matrices are small.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # lengths that are fixed are at their bounds
        model = _process(points.shape[1]).fit(points, gains.clip(-2, 2))
        deviation = _process(points.shape[1], model.kernel_)
        deviation.fit(np.vstack([points, pending]), np.zeros(len(points) + len(pending)))
        _, sigma = deviation.predict(candidates, return_std=True)
        beta = 0.2 + max(0.0, math.log(0.4 * len(points)))
        return np.asarray(model.predict(candidates) + math.sqrt(beta) * sigma)


def _process(features: int, fitted: Any = None) -> Any:
    """A process whose kernel decays over the first feature, the share: exp(-|Δ|/ℓ), as (1-ε)^(|Δ|/2) does."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(fitted or _kernel(features), optimizer=None if fitted else "fmin_l_bfgs_b")


def _kernel(features: int) -> Any:
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    far = 1e5  # so long a length that a feature does not matter
    free, fixed = (0.05, 10.0), (far, far)
    space = RBF([far] + [0.5] * (features - 1), [fixed] + [free] * (features - 1))
    time = Matern([1.0] + [far] * (features - 1), [(0.2, 100.0)] + [fixed] * (features - 1), nu=0.5)
    return ConstantKernel(1.0, (0.01, 100.0)) * space * time + WhiteKernel(0.1, (1e-4, 1.0))
