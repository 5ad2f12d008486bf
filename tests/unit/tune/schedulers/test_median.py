"""The median stopping rule, and no scheduler."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

from heliostat.tune.schedulers.base import Settings
from heliostat.tune.schedulers.median import Median, median_without, next_validation
from heliostat.tune.schedulers.none import Full
from heliostat.tune.trials import Begin, Continue, Objective, Score, Trial
from tests.unit.tune.simulated import PowerLaws, Simulation

LOSS = (Objective("loss", "min"),)
BOTH = (Objective("loss", "min"), Objective("size", "min"))
MEDIAN = Median(Settings(LOSS, grace=0.25))
NONE = Full(Settings(LOSS, grace=0.25))


def trial(number: int, *losses: float, until: float | None = None, size: float = 1.0) -> Trial:
    scores = tuple(Score(0.25 * (k + 1), k, {"loss": loss, "size": size}) for k, loss in enumerate(losses))
    return Trial(number, {}, until or 0.25 * len(losses), scores)


DONE = [trial(0, 0.8, 0.4, 0.4, 0.4), trial(1, 0.9, 0.7, 0.7, 0.7), trial(2, 1.0, 1.0, 1.0, 1.0)]


def test_a_trial_is_held_if_its_best_is_worse_than_the_median_of_the_averages_until_there() -> None:
    assert MEDIAN.decide([*DONE, trial(3, 0.9, 0.79)], False) == Continue(3, 0.75)  # the averages: 0.6, 0.8, 1.0
    assert MEDIAN.decide([*DONE, trial(3, 0.9, 0.81)], False) is None
    assert MEDIAN.decide([*DONE, trial(3, 0.9, 0.81)], True) == Begin(0.25)
    assert MEDIAN.decide([*DONE, trial(3, 0.1, 0.99)], False) == Continue(3, 0.75)  # its best counts


def test_with_less_than_three_others_every_trial_goes_on() -> None:
    assert MEDIAN.decide([*DONE[:2], trial(2, 9.0)], True) == Continue(2, 0.5)


def test_one_that_was_held_goes_on_when_others_are_no_better() -> None:
    held = trial(3, 0.95)
    assert MEDIAN.decide([*DONE, held], False) is None
    assert MEDIAN.decide([*DONE, held, trial(4, 2.0)], False) == Continue(3, 0.5)


def test_failed_and_stopped_trials_never_go_on_and_failed_ones_are_no_measure() -> None:
    failed = replace(trial(3, 0.1), error="lost", until=0.5)
    stopped = replace(trial(4, 0.1), stopped="by hand")
    assert MEDIAN.decide([*DONE, failed, stopped, trial(5, math.nan)], False) is None
    assert MEDIAN.decide([*DONE[:2], failed, trial(4, 9.0)], False) == Continue(4, 0.5)


def test_of_several_objectives_one_that_is_not_worse_is_enough() -> None:
    median = Median(Settings(BOTH, grace=0.25))
    assert median.decide([*DONE, trial(3, 2.0, size=1.0)], False) == Continue(3, 0.5)
    assert median.decide([*DONE, trial(3, 2.0, size=1.1)], False) is None


def test_the_median_without_one_is_that_of_the_others() -> None:
    draw = random.Random(0)
    for size in range(2, 12):
        values = sorted(draw.randrange(6) for _ in range(size))
        for own in values:
            others = list(values)
            others.remove(own)
            assert median_without(own, values) == statistics.median(others)


def test_validations_are_at_multiples_of_the_grace_share_and_at_the_end() -> None:
    found = [0.0]
    while found[-1] < 1:
        found.append(next_validation(found[-1], 0.3))
    assert found == [0.0, 0.3, 0.6, 0.9, 1.0]
    assert next_validation(0.1 + 0.2, 0.1) == 0.4
    assert next_validation(0.0, 1.0) == 1.0


def test_the_same_seed_decides_the_same_with_any_number_of_gangs() -> None:
    found = [Simulation(MEDIAN, PowerLaws(4), 16, 0.25, gangs, 1, random.Random(gangs)).run() for gangs in (1, 2, 5)]
    assert found[0].decisions == found[1].decisions == found[2].decisions
    assert found[0].table == found[1].table == found[2].table


def test_without_a_scheduler_all_are_trained_in_full() -> None:
    found = Simulation(NONE, PowerLaws(0, diverging=0.3), 12, 0.25, gangs=3).run()
    assert [one.error is None for one in found.table] == [one.share == 1 for one in found.table]
    assert sum(one.share == 1 for one in found.table) > 4
    assert found.decisions == [Begin(1.0)] * 12


def test_without_a_scheduler_what_was_paused_goes_on_to_its_end() -> None:
    assert NONE.decide([trial(0, 0.5), trial(1, math.nan)], True) == Continue(0, 1.0)
    assert NONE.decide([trial(1, math.nan)], False) is None
