"""Whether what is counted in production differs from the reference: an effect above a limit, and a significant one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from heliostat.infra.drift.reference import Reference

PSI_LIMIT = 0.2
"""From here on, by the rule of thumb of credit scoring, a population has shifted (Siddiqi: "Credit Risk Scorecards",
2006)."""
ALPHA = 0.01
"""Probability that one of the columns of a model that has not drifted is significant."""
LEAST_ROWS = 500
"""In the window: of fewer, chance alone may give an index near the limit."""
LEAST_REFERENCE_ROWS = 30
SMOOTHING = 0.5
LEAST_EXPECTED = 5.0
State = Literal["stable", "drifted", "too_few"]


@dataclass(frozen=True)
class Verdict:
    """What is known of one column. Index and p-value are 0 and 1 where there are too few rows."""

    column: str
    psi: float
    p_value: float
    state: State


def verdicts(reference: Reference, counts: np.ndarray) -> list[Verdict]:
    """The verdict on each column, from the counts of the window: int64 [reference.size].

    A column has drifted if its index is above PSI_LIMIT and its p-value, times the number of columns (Bonferroni), is
    below ALPHA.
    """
    import numpy as np

    found = []
    for column, now in zip(reference.columns, reference.split(counts), strict=True):
        then = np.asarray(column.counts)
        if now.sum() < LEAST_ROWS or then.sum() < LEAST_REFERENCE_ROWS:
            found.append(Verdict(column.name, 0.0, 1.0, "too_few"))
            continue
        index, p = population_stability_index(then, now), p_value(then, now)
        drifted = index > PSI_LIMIT and p * len(reference.columns) < ALPHA
        found.append(Verdict(column.name, index, p, "drifted" if drifted else "stable"))
    return found


def population_stability_index(then: np.ndarray, now: np.ndarray) -> float:
    """Sum over the bins of (q - p) ln(q / p), with the shares p of `then` and q of `now` (counts [bins]).

    Also known as Jeffreys' divergence: symmetric, 0 for equal shares. Half a record is added to each bin, so that empty
    ones give finite numbers (Krichevsky and Trofimov 1981); bins that are empty on both sides are left out.
    """
    import numpy as np

    used = then + now > 0
    p, q = (side[used] + SMOOTHING for side in (then, now))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def p_value(then: np.ndarray, now: np.ndarray) -> float:
    """The p-value of the chi-square test that two binned samples (counts [bins]) have one distribution.

    Press et al., "Numerical Recipes", 3rd ed., 14.3.3. Bins in which the smaller sample would have fewer than
    LEAST_EXPECTED records are made one, since the statistic is chi-square distributed only for larger ones (Cochran
    1954).
    """
    import numpy as np
    import torch

    both = np.stack([then, now]).astype(np.float64)
    expected = both.sum(axis=0) * both.sum(axis=1).min() / both.sum()
    rare = expected < LEAST_EXPECTED
    both = np.column_stack([both[:, ~rare], both[:, rare].sum(axis=1)])
    both = both[:, both.sum(axis=0) > 0]
    means = np.outer(both.sum(axis=1), both.sum(axis=0)) / both.sum()
    statistic = float(((both - means) ** 2 / means).sum())
    freedom = both.shape[1] - 1
    if not freedom:
        return 1.0
    # The survival function of the chi-square distribution, of a library that a replica has loaded anyway.
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
