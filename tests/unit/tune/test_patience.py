"""A search that finds nothing better begins no more trials."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.local import LocalStore
from heliostat.tune.config import TuneConfig
from heliostat.tune.driver import Driver
from heliostat.tune.history import look
from heliostat.tune.patience import Patience
from heliostat.tune.ranking import outcome
from heliostat.tune.trials import Objective, Score, Trial
from tests.unit.tune.gangs import LOSS, Workshop, config, driver_of, plan, run


def trial(number: int, share: float, *losses: float, error: str | None = None) -> Trial:
    scores = tuple(Score(share, 1, {"loss": loss, "size": size}) for loss, size in [(*losses, 0.0)[:2]])
    return Trial(number, {}, share, scores, error)


def counted(patience: Patience, *trials: Trial) -> list[bool]:
    """Whether it is used up, after each of the trials."""
    found = []
    for one in trials:
        patience.take(one)
        found.append(patience.is_used_up)
    return found


def test_it_runs_out_after_so_many_trials_without_a_better_one() -> None:
    assert counted(Patience([LOSS], 2, 0.0), *(trial(at, 1, loss) for at, loss in enumerate((3, 4, 2, 2, 5)))) == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_what_is_hardly_better_is_not_and_what_is_better_is_compared_with_the_last_that_was() -> None:
    losses = (3.0, 2.9, 2.8, 2.7)
    assert counted(Patience([LOSS], 3, 0.25), *(trial(at, 1, loss) for at, loss in enumerate(losses)))[-1] is False
    assert counted(Patience([LOSS], 3, 0.35), *(trial(at, 1, loss) for at, loss in enumerate(losses)))[-1] is True


def test_trials_compare_with_those_that_were_trained_as_far_and_count_once() -> None:
    patience = Patience([LOSS], 2, 0.0)
    short, promoted = [trial(0, 0.25, 3), trial(1, 0.25, 4)], [trial(0, 0.5, 5), trial(1, 0.5, 6), trial(1, 1, 9)]
    assert counted(patience, *short, *promoted) == [False] * 5
    assert counted(patience, trial(2, 0.25, 4), trial(2, 0.5, 7), trial(3, 0.25, 2)) == [False] * 3
    assert counted(patience, trial(4, 0.25, 3), trial(5, 0.25, 3)) == [False, True]
    assert counted(patience, trial(6, 0.25, 1)) == [True], "a search that has ended is not begun again"


def test_trials_that_fail_count_and_are_never_better() -> None:
    lost = [trial(0, 1, 1, error="no memory"), trial(1, 1, math.nan), Trial(2, {}, 1.0, (), "no such activation")]
    assert counted(Patience([LOSS], 3, 0.0), *lost) == [False, False, True]


def test_with_several_objectives_a_trial_of_the_front_is_better() -> None:
    patience = Patience([LOSS, Objective("size", "min")], 2, 0.0)
    found = counted(patience, trial(0, 1, 1, 5), trial(1, 1, 2, 4), trial(2, 1, 3, 4), trial(3, 1, 9, 3))
    assert found == [False] * 4
    assert counted(patience, trial(4, 1, 9, 3), trial(5, 1, 9, 9)) == [False, True]


def told(driver: Driver) -> list[Any]:
    return [(one.values, one.until, [score.metrics for score in one.scores]) for one in driver.trials()]


@pytest.mark.parametrize("scheduler", ["none", "asha", "median"])
def test_one_gang_or_five_and_any_kill_end_at_the_same_trial(tmp_path: Path, scheduler: str) -> None:
    made = config(trials=40, patience=5, scheduler=scheduler, lag=3)
    found = []
    for room in (1, 2, 5):
        place = LocalStore(str(tmp_path / str(room)))
        found.append(run(plan(made, Workshop(room, delays=random.Random(room))), place))
    killed = LocalStore(str(tmp_path / "killed"))
    for scores in (3, 8):
        first = driver_of(plan(made, Workshop(2)), killed, lambda driver, most=scores: _stop_at(driver, most))  # type: ignore[misc]
        asyncio.run(first.run())
    found.append(run(plan(made, Workshop(2)), killed))
    assert 5 < len(found[0].trials()) < 30
    assert [told(one) for one in found] == [told(found[0])] * 4
    assert not any(one.decisions.open_works for one in found)
    assert "finished" in {outcome(one) for one in found[0].trials()}
    assert found[0].decisions.wanted == len(found[0].trials())
    said = "tune.patience: none of the last 5 trials was better than those before"
    assert look(killed, "runs/m/s", "s").note == found[0].decisions.note == said


def _stop_at(driver: Driver, scores: int) -> None:
    if sum(len(trial.scores) for trial in driver.trials()) >= scores:
        driver.stop("enough")


def test_more_patience_goes_on_where_it_ran_out(tmp_path: Path) -> None:
    place = LocalStore(str(tmp_path))
    short = run(plan(config(trials=12, patience=2, scheduler="none"), Workshop()), place)
    more = run(plan(config(trials=12, scheduler="none"), Workshop()), place)
    assert len(short.trials()) < 12
    assert (len(more.trials()), more.decisions.note) == (12, "")
    assert more.trials()[: len(short.trials())] == short.trials()


def test_a_space_that_is_used_up_is_said(tmp_path: Path) -> None:
    space = {"learning_rate": {"choice": [0.1, 0.2, 0.3]}}
    driver = run(plan(config(trials=8, space=space), Workshop()), LocalStore(str(tmp_path)))
    assert driver.decisions.note == "tune.space: all of its 3 configurations are tried"
    assert driver.decisions.wanted == 3


def test_a_difference_without_patience_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^tune.min_delta: 0.1 given without tune.patience"):
        build(TuneConfig, {"min_delta": 0.1})
