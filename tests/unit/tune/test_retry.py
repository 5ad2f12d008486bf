"""Trials that have failed are tried again, once, as a user asks for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.storage.local import LocalStore
from heliostat.tune.gang import GangLostError, TrialError
from heliostat.tune.history import look
from heliostat.tune.ranking import outcome
from heliostat.tune.retention import unneeded
from heliostat.tune.trials import Score, Trial
from tests.unit.tune.gangs import LOSS, STEPS, FakeGang, Workshop, config, cuts, loss_of, plan, run

SETTINGS = config(scheduler="none", trials=3)


def failing(number: int, step: int, error: Exception) -> Callable[[FakeGang], None]:
    """Lets a trial fail at a step."""

    def on_step(gang: FakeGang) -> None:
        if gang.place and gang.place.source.endswith(f"/{number}") and gang.step == step:
            raise error

    return on_step


def told(trials: list[Trial]) -> list[Any]:
    return [(one.values, one.error, [(score.share, score.metrics) for score in one.scores]) for one in trials]


def test_a_trial_that_failed_goes_on_from_its_checkpoint_and_no_other_one_is_begun(tmp_path: Path) -> None:
    place, workshop = LocalStore(str(tmp_path)), Workshop(on_step=failing(1, 5, GangLostError("no node")))
    made = config(scheduler="none", trials=3, max_failures=0)
    first = run(plan(made, workshop), place)
    assert [outcome(trial) for trial in first.trials()] == ["finished", "failed", "finished"]
    workshop.on_step, before = lambda _: None, len(workshop.trained)
    again = run(plan(config(scheduler="none", trials=8), workshop), place, retry=True)
    assert [outcome(trial) for trial in again.trials()] == ["finished"] * 3
    assert [step for _, step in workshop.trained[before:]] == [5, 6, 7, 8]
    alone = run(plan(made, Workshop()), LocalStore(str(tmp_path / "alone")))
    assert told(again.trials()) == told(alone.trials())
    assert told(list(look(place, "runs/m/s", "s").trials)) == told(alone.trials())
    assert len(run(plan(config(scheduler="none", trials=8), workshop), place).trials()) == 8


def test_one_that_fails_again_has_failed_for_its_new_reason_and_may_be_tried_once_more(tmp_path: Path) -> None:
    place, workshop = LocalStore(str(tmp_path)), Workshop(on_step=failing(1, 0, TrialError("full disk")))
    run(plan(SETTINGS, workshop), place)
    workshop.on_step = failing(1, 3, TrialError("no activation"))
    again = run(plan(SETTINGS, workshop), place, retry=True)
    assert [trial.error for trial in again.trials()] == [None, "no activation", None]
    workshop.on_step = lambda _: None
    assert [trial.error for trial in run(plan(SETTINGS, workshop), place).trials()] == [None, "no activation", None]
    third = run(plan(SETTINGS, workshop), place, retry=True)
    assert [outcome(trial) for trial in third.trials()] == ["finished"] * 3
    assert third.trials()[1].scores[-1].metrics == {"loss": loss_of(third.trials()[1].values, STEPS)}


def test_a_validation_that_was_no_number_is_forgotten(tmp_path: Path) -> None:
    place, is_broken = LocalStore(str(tmp_path)), [True]

    def loss(values: Any, step: int) -> float:
        return math.nan if is_broken[0] and values["learning_rate"] > 0.5 else loss_of(values, step)

    workshop = Workshop(loss=loss)
    broken = [trial.number for trial in run(plan(SETTINGS, workshop), place).trials() if trial.error]
    assert broken
    is_broken[0] = False
    again = run(plan(SETTINGS, workshop), place, retry=True)
    assert told(again.trials()) == told(run(plan(SETTINGS, Workshop()), LocalStore(str(tmp_path / "b"))).trials())


@pytest.mark.parametrize("scheduler", ["asha", "none", "median"])
def test_a_driver_killed_at_any_write_while_it_tries_again_ends_as_one_left_alone(
    tmp_path: Path, scheduler: str
) -> None:
    made = config(scheduler=scheduler, trials=6, search="tpe", lag=2)
    place, alone = LocalStore(str(tmp_path / "whole")), Workshop(on_step=failing(1, 1, TrialError("x")))
    run(plan(made, alone), place)
    journal = tmp_path / "whole" / "runs/m/s/journal"
    before = len(list(journal.iterdir()))
    alone.on_step = lambda _: None
    whole = run(plan(made, alone), place, retry=True)
    assert not any(trial.error for trial in whole.trials())
    events = [json.loads(group.read_text()) for group in sorted(journal.iterdir())]
    asked = next(at for at, group in enumerate(events) if any(one["data"].get("again") for one in group))
    assert asked >= before
    for folder in list(cuts(tmp_path / "whole", tmp_path))[asked + 1 :]:
        driver = run(plan(made, Workshop(2, stored=set(alone.stored))), LocalStore(str(folder)))
        assert driver.decisions.works == whole.decisions.works
        assert told(driver.trials()) == told(whole.trials())


def test_checkpoints_of_failed_trials_are_kept_while_there_is_room_unless_their_weights_are_lost() -> None:
    def trial(number: int, loss: float, error: str | None) -> Trial:
        return Trial(number, {}, 0.5, (Score(0.5, 4, {"loss": loss}),), error)

    trials = [
        trial(0, 1.0, None),
        trial(1, 2.0, "no node"),
        trial(2, math.nan, "not finite"),
        Trial(3, {}, 0.5, (), "x"),
    ]
    known = dict.fromkeys(range(4), 10)
    assert unneeded(known, trials, (LOSS,), 100) == [2]
    assert unneeded(known, trials, (LOSS,), 20) == [2, 3]
    assert unneeded(known, trials, (LOSS,), 10) == [2, 3, 1]
    assert unneeded(known, trials, (LOSS,), 5) == [2, 3, 1, 0]
