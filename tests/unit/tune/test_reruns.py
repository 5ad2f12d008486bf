"""Configurations on further seeds: repeats in a search, and new runs of its best before one is named."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import TrainingError
from heliostat.infra.storage.local import LocalStore
from heliostat.tune import driver as drivers
from heliostat.tune.config import TuneConfig
from heliostat.tune.driver import Driver
from heliostat.tune.gang import TrialError
from heliostat.tune.history import look
from heliostat.tune.journal import work_from
from heliostat.tune.ranking import best_first, configurations, outcome
from heliostat.tune.requests import Request, ask
from heliostat.tune.reruns import NEW_SEEDS, Reruns
from heliostat.tune.search import Search
from heliostat.tune.standing import verdict
from heliostat.tune.trials import SEED as SEED_KEY
from heliostat.tune.trials import Origin, Score, Trial
from heliostat.tune.work import Work
from tests.unit.tune.gangs import LOSS, SEED, STEPS, FakeGang, Workshop, config, cuts, driver_of, loss_of, plan, run

GOALS = (LOSS,)


def noisy(values: Mapping[str, Any], step: int) -> float:
    """As `loss_of`, and by luck 0.2 better or worse: as the seed has it."""
    draw = random.Random(f"{values['learning_rate']} {values.get(SEED_KEY, SEED)}")
    return loss_of(values, step) + draw.uniform(-0.2, 0.2)


def search(folder: Path, workshop: Workshop | None = None, **changes: Any) -> Driver:
    workshop = workshop or Workshop(loss=noisy)
    return run(plan(config(**changes), workshop), LocalStore(str(folder)))


def told(trials: list[Trial]) -> list[Any]:
    """What is known of trials, times apart."""
    return [{**asdict(one), "scores": [(score.share, score.metrics) for score in one.scores]} for one in trials]


def seeds(trials: list[Trial]) -> list[int]:
    return [trial.values.get(SEED_KEY, SEED) for trial in trials]


def final(trial: Trial) -> float:
    return LOSS.best(trial)


def test_each_configuration_is_trained_on_as_many_seeds_as_asked(tmp_path: Path) -> None:
    driver = search(tmp_path, trials=4, repeats=3, scheduler="none")
    assert len(driver.trials()) == 12
    for one in configurations(driver.trials()):
        assert seeds(list(one.runs)) == [SEED, SEED + 1, SEED + 2]
        assert {run.values["learning_rate"] for run in one.runs} == {one.runs[0].values["learning_rate"]}
        assert {outcome(run) for run in one.runs} == {"finished"}
        assert len({final(run) for run in one.runs}) == 3
    assert len(configurations(driver.trials())) == 4


def test_configurations_are_compared_by_their_mean(tmp_path: Path) -> None:
    trials = search(tmp_path, trials=6, repeats=3, scheduler="none", seed=1).trials()
    by_mean = sorted(configurations(trials), key=lambda one: sum(map(final, one.runs)))
    lucky = min(trials, key=final)
    assert by_mean[0].number != lucky.configuration, "the luckiest run is of another configuration: choose another seed"
    ranked = best_first(trials, GOALS)
    assert [one.number for one in ranked] == [run.number for one in by_mean for run in one.runs]
    best = Search(trials, (LOSS,)).best
    assert (best.number, best.values) == (by_mean[0].number, by_mean[0].runs[0].values)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_promotes_all_runs_of_a_configuration_by_their_mean(tmp_path: Path, scheduler: str) -> None:
    driver = search(tmp_path, trials=8, repeats=3, scheduler=scheduler, search="tpe")
    found = configurations(driver.trials())
    assert len(found) == 8
    for one in found:
        assert len({run.share for run in one.runs}) == 1
    assert len({one.runs[0].share for one in found}) > 1, "nobody was held"
    if scheduler == "asha":
        first = {one.number: [run.at(0.25) for run in one.runs] for one in found}
        best = min(first, key=lambda number: sum(map(final, first[number])))
        assert next(one for one in found if one.number == best).runs[0].share > 0.25


def test_the_best_are_run_again_in_full_on_new_seeds_and_named_by_their_mean(tmp_path: Path) -> None:
    trials = search(tmp_path, trials=8, scheduler="none", confirm=3, confirm_seeds=4, seed=2).trials()
    search_only, new = trials[:8], trials[8:]
    best = best_first(search_only, GOALS)[:3]
    assert len(new) == 12
    assert {one.confirms for one in new} == {one.number for one in best}
    assert set(seeds(new)) == {SEED + NEW_SEEDS + index for index in range(4)}
    assert {outcome(one) for one in new} == {"finished"}
    again = {one.number: [final(run) for run in new if run.confirms == one.number] for one in best}
    winner = min(again, key=lambda number: sum(again[number]))
    assert winner != best[0].number, "the search was right: choose another seed"
    named = Search(trials, (LOSS,)).best
    assert named.number == winner
    assert SEED_KEY not in named.values
    ranked = [one.number for one in best_first(trials, GOALS) if one.confirms is None]
    assert ranked[3:] == [one.number for one in best_first(search_only, GOALS)[3:]]
    found = verdict(trials, GOALS)
    assert found
    assert found.standings[0].number == winner
    assert found.standings[0].over_seeds.mean == pytest.approx(sum(again[winner]) / 4)
    assert found.standings[1].behind
    assert found.standings[1].behind.method == "paired t"


def test_a_paused_trial_is_confirmed_in_full_from_its_start(tmp_path: Path) -> None:
    trials = search(tmp_path, trials=8, scheduler="asha", confirm=8).trials()
    assert {outcome(one) for one in trials[:8]} == {"finished", "paused"}
    assert {one.share for one in trials[8:]} == {1.0}
    assert not any(one.origin for one in trials)


def test_a_seed_gives_one_search_whatever_the_number_of_gangs_and_their_speed(tmp_path: Path) -> None:
    found = []
    for room in (1, 2, 5):
        workshop = Workshop(room, delays=random.Random(room), loss=noisy)
        driver = search(tmp_path / str(room), workshop, trials=6, repeats=2, confirm=2, search="tpe", lag=4)
        found.append((driver.decisions.works, told(driver.trials())))
    assert found[0] == found[1] == found[2]
    assert len(driver.trials()) == 6 * 2 + 2 * 3


def test_a_search_killed_after_any_write_ends_as_one_left_alone(tmp_path: Path) -> None:
    made: dict[str, Any] = {"trials": 4, "repeats": 2, "confirm": 2, "search": "tpe"}
    alone = Workshop(loss=noisy)
    whole = search(tmp_path / "whole", alone, **made)
    for folder in cuts(tmp_path / "whole", tmp_path):
        workshop = Workshop(2, stored=set(alone.stored), loss=noisy)
        driver = search(folder, workshop, **made)
        assert driver.decisions.works == whole.decisions.works
        assert told(driver.trials()) == told(whole.trials())
        ends = sum(step == STEPS for _, step in alone.trained)
        assert sum(step == STEPS for _, step in workshop.trained) <= ends
    state = look(LocalStore(str(folder)), "runs/m/s", "s")
    assert told(list(state.trials)) == told(whole.trials())
    assert state.wanted == len(state.trials) == 4 * 2 + 2 * 3
    assert state.verdict == verdict(whole.trials(), GOALS)


def test_without_a_lag_the_best_are_run_again_once_all_have_ended(tmp_path: Path) -> None:
    workshop = Workshop(3, delays=random.Random(1), loss=noisy)
    trials = search(tmp_path, workshop, trials=5, repeats=2, lag="none", scheduler="none", confirm=2).trials()
    assert [one.confirms is None for one in trials] == [True] * 10 + [False] * 6
    best = [one.number for one in best_first(trials[:10], GOALS) if one.repeats is None][:2]
    assert {one.confirms for one in trials[10:]} == set(best)


def test_an_end_while_the_best_are_run_again_leaves_a_fair_comparison(tmp_path: Path) -> None:
    """The best of 4 and the second run on three seeds; the search is stopped in the fourth of these six runs."""
    made = plan(
        config(trials=4, scheduler="none", confirm=2, lag=0), workshop := Workshop(loss=noisy, delays=random.Random(0))
    )
    first = driver_of(made, place := LocalStore(str(tmp_path)))
    workshop.on_step = lambda gang: first.stop("enough") if len(workshop.trained) >= 7 * STEPS + 5 else None
    asyncio.run(first.run())
    halfway = first.trials()
    assert [outcome(one) for one in halfway[4:]] == ["finished"] * 3 + ["training"]
    found = verdict(halfway, GOALS)
    assert found
    assert [one.over_seeds.runs for one in found.standings] == [1, 1], "on the second seed one has ended"
    assert found.sentences[-1] == "1 of the runs on new seeds has not ended"
    workshop.on_step = lambda _: None
    ended = run(made, place).trials()
    assert ended[:7] == halfway[:7]
    found = verdict(ended, GOALS)
    assert found
    assert ([one.over_seeds.runs for one in found.standings], found.left) == ([3, 3], 0)
    assert len(workshop.trained) == 10 * STEPS, "a step was trained twice"


def test_a_resume_may_confirm_more(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"trials": 6, "scheduler": "none"}
    workshop = Workshop(loss=noisy)
    none = search(tmp_path, workshop, **changes).trials()
    assert verdict(none, GOALS) is None
    two = search(tmp_path, workshop, **changes, confirm=2).trials()
    assert two[:6] == none
    three = search(tmp_path, workshop, **changes, confirm=3).trials()
    assert three[:12] == two
    assert {one.confirms for one in three[12:]} == {best_first(none, GOALS)[2].number}
    assert seeds(three[12:]) == seeds([one for one in two if one.confirms == two[6].confirms])
    more = search(tmp_path, workshop, **changes, confirm=3, confirm_seeds=4).trials()
    assert seeds(more[15:]) == [SEED + NEW_SEEDS + 3] * 3


def test_a_resume_with_more_trials_goes_on_searching_and_confirms_those_that_are_best_now(tmp_path: Path) -> None:
    workshop = Workshop(loss=noisy)
    few = search(tmp_path, workshop, trials=3, scheduler="none", confirm=1, search="tpe").trials()
    more = search(tmp_path, workshop, trials=12, scheduler="none", confirm=1, search="tpe").trials()
    assert more[:6] == few
    searched = [one for one in more if one.confirms is None]
    assert len(searched) == 12
    assert len({one.values["learning_rate"] for one in searched}) == 12
    best = best_first(searched, GOALS)[0].number
    assert best > 5, "none of the new ones is better: choose another seed"
    assert {one.confirms for one in more[6:]} == {None, best}


def test_one_that_fails_on_a_new_seed_comes_after_one_that_does_not_and_before_the_others(tmp_path: Path) -> None:
    def on_step(gang: FakeGang) -> None:
        if gang.values.get(SEED_KEY) == SEED + NEW_SEEDS + 1 and gang.values["learning_rate"] == bad:
            raise TrialError("loss exploded")

    bad = -1.0
    searched = search(tmp_path / "a", trials=5, scheduler="none").trials()
    ranked = best_first(searched, GOALS)
    bad = ranked[0].values["learning_rate"]
    workshop = Workshop(loss=loss_of, on_step=on_step)
    trials = search(tmp_path / "b", workshop, trials=5, scheduler="none", confirm=2).trials()
    first, second = best_first(trials[:5], GOALS)[:2]
    assert first.values["learning_rate"] == bad, "luck decides here: choose another seed"
    named = [one.number for one in best_first(trials, GOALS) if one.confirms is None]
    assert named[:2] == [second.number, first.number]
    found = verdict(trials, GOALS)
    assert found
    assert [(one.over_seeds.runs, one.over_seeds.failed) for one in found.standings] == [(3, 0), (2, 1)]


def test_a_configuration_that_fails_on_one_seed_is_not_trained_on_the_next(tmp_path: Path) -> None:
    def on_step(gang: FakeGang) -> None:
        if gang.values["learning_rate"] == bad and gang.values.get(SEED_KEY) == SEED + 1:
            raise TrialError("loss exploded")

    bad = search(tmp_path / "a", trials=3, scheduler="none").trials()[1].values["learning_rate"]
    trials = search(tmp_path / "b", Workshop(on_step=on_step), trials=3, repeats=3, scheduler="none", lag=0).trials()
    assert [len(one.runs) for one in configurations(trials)] == [3, 2, 3]
    assert best_first(trials, GOALS)[-1].configuration == configurations(trials)[1].number


def test_a_user_may_stop_a_run_on_a_new_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "REQUEST_SECONDS", 0.0)
    monkeypatch.setattr(drivers, "TICK_SECONDS", 0.005)
    place = LocalStore(str(tmp_path))
    asked: list[int] = []

    def on_step(gang: FakeGang) -> None:
        if gang.place and gang.place.source.endswith("/4") and gang.step == 3 and not asked:
            asked.append(4)
            ask(place, "runs/m/s", Request("stop", 4))

    workshop = Workshop(on_step=on_step, loss=noisy, delays=random.Random(0))
    trials = search(tmp_path, workshop, trials=4, scheduler="none", confirm=2).trials()
    assert outcome(trials[4]) == "stopped"
    assert len(trials) == 10
    found = verdict(trials, GOALS)
    assert found
    assert {one.number: one.over_seeds.failed for one in found.standings}[trials[4].configuration] == 1


def reruns(**changes: Any) -> Reruns:
    return Reruns(config(**changes), GOALS, SEED)


def scored(number: int, loss: float, **more: Any) -> Trial:
    return Trial(number, {"learning_rate": number / 10}, 1.0, (Score(1.0, STEPS, {"loss": loss}),), **more)


def test_new_seeds_are_those_of_no_repeat(tmp_path: Path) -> None:
    trials = search(tmp_path, trials=3, repeats=3, scheduler="none", confirm=2).trials()
    searched = set(seeds([one for one in trials if one.confirms is None]))
    assert searched.isdisjoint(seeds([one for one in trials if one.confirms is not None]))


def test_what_a_user_has_stopped_is_not_run_again() -> None:
    trials = [scored(0, 0.1, stopped="stopped by a user"), scored(1, 0.2), scored(2, 0.3)]
    work = reruns(confirm=1).confirmation(trials)
    assert work
    assert (work.confirms, work.trial, work.until) == (1, 3, 1.0)


def test_a_clone_has_no_repeats_and_may_be_the_best() -> None:
    first = [scored(0, 0.5), replace(scored(1, 0.6), repeats=0)]
    clone = scored(2, 0.1, origin=Origin(0, 0.5))
    made = reruns(repeats=2, confirm=1)
    assert made.repeat([*first, clone], may_begin=True) is None
    assert best_first(made.table([*first, clone]), GOALS)[0] is clone
    assert best_first([*first, clone], GOALS)[0] is clone


def test_a_winner_is_a_first_run() -> None:
    lost = [scored(0, 0.1, error="loss exploded"), replace(scored(1, 0.2), repeats=0)]
    with pytest.raises(TrainingError, match=r"^none of 2 trials has a finite loss; 1 failed, the first: loss"):
        assert Search(lost, (LOSS,)).best
    assert Search([*lost, scored(2, 0.9)], (LOSS,)).best.number == 2


def test_a_journal_from_before_there_were_repeats_is_read() -> None:
    work = Work(3, 1, {"learning_rate": 0.1}, 0.5, None, (2,))
    data = asdict(work)
    assert work_from(data) == work
    assert work_from({key: value for key, value in data.items() if key not in ("repeats", "confirms")}) == work
    again = replace(work, confirms=0)
    assert work_from(asdict(again)) == again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats"),
        ({"confirm": -1}, "confirm"),
        ({"confirm": 9}, r"tune\.confirm: 9 given; tune\.trials, 8, is the most"),
        ({"confirm": 2, "confirm_seeds": 1}, "confirm_seeds"),
    ],
)
def test_what_cannot_be_run_again_is_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_schedule_is_not_run_again() -> None:
    made = TuneConfig.model_construct(scheduler="pbt", confirm=2, trials=8)
    with pytest.raises(ValueError, match=r"^tune\.confirm: 2 given; 0 is allowed with tune\.scheduler: pbt, whose"):
        made.check_runs()


def test_all_runs_are_counted_in_what_a_search_is_to_have() -> None:
    made = config(trials=8, repeats=2, confirm=3, confirm_seeds=4)
    assert made.runs == 8 * 2 + 3 * 4
    assert config(trials=8, repeats=2, lag=None).decision_lag == 4
