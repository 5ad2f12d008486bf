"""A search loses nothing: not with its driver, not with a gang, and it decides alike whatever happens to them."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError, ResourceError, StorageError, TrainingError
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.local import LocalStore
from heliostat.tune import driver as drivers
from heliostat.tune.driver import Driver
from heliostat.tune.gang import GangLostError, MemoryOutError, TrialError
from heliostat.tune.history import look
from heliostat.tune.ranking import best_first, outcome
from heliostat.tune.requests import Request, ask
from heliostat.tune.retention import retain
from heliostat.tune.trials import Trial
from tests.unit.tune.gangs import LOSS, STEPS, FakeGang, Workshop, config, cuts, driver_of, loss_of, plan, run


def store(folder: Path) -> LocalStore:
    return LocalStore(str(folder))


def told(trials: list[Trial]) -> list[Any]:
    """What is known of trials, times apart."""
    return [
        (one.values, one.until, one.error, [(score.share, score.step, score.metrics) for score in one.scores])
        for one in trials
    ]


def test_a_seed_gives_one_search_whatever_the_number_of_gangs_and_their_speed(tmp_path: Path) -> None:
    found = []
    for room in (1, 2, 5):
        workshop = Workshop(room, delays=random.Random(room))
        driver = run(plan(config(trials=12, search="tpe"), workshop), store(tmp_path / str(room)))
        assert len(workshop.hired) == min(room, 3)  # a lag of 2: three at a time
        found.append((driver.decisions.works, told(driver.trials())))
    assert found[0] == found[1] == found[2]
    assert {outcome(trial) for trial in driver.trials()} == {"finished", "paused"}


def test_a_search_killed_after_any_write_ends_as_one_left_alone(tmp_path: Path) -> None:
    made = config(trials=8, search="tpe")
    alone = Workshop()
    whole = run(plan(made, alone), store(tmp_path / "whole"))
    for folder in cuts(tmp_path / "whole", tmp_path):
        workshop = Workshop(2, stored=set(alone.stored))
        driver = run(plan(made, workshop), store(folder))
        assert driver.decisions.works == whole.decisions.works
        assert told(driver.trials()) == told(whole.trials())
        ends = [rate for rate, step in alone.trained if step == STEPS]
        again = [rate for rate, step in workshop.trained if step == STEPS]
        assert len(again) <= len(ends)


def test_a_search_without_a_lag_goes_on_as_it_was_decided(tmp_path: Path) -> None:
    made = config(trials=8, lag="none", concurrent=3)
    workshop = Workshop(3, delays=random.Random(1))
    first = driver_of(plan(made, workshop), store(tmp_path), lambda driver: _stop_at(driver, 5))
    asyncio.run(first.run())
    before = first.decisions.works
    second = run(plan(made, workshop), store(tmp_path))
    assert second.decisions.works[: len(before)] == before
    assert sum(trial.share == 1 for trial in second.trials()) >= 1
    finished = [step for step in workshop.trained if step[1] == STEPS]
    assert len(finished) == len(set(finished))


def _stop_at(driver: Driver, scores: int) -> None:
    if sum(len(trial.scores) for trial in driver.trials()) >= scores:
        driver.stop("enough")


def test_a_stopped_search_stores_what_runs_and_trains_no_step_twice(tmp_path: Path) -> None:
    made, workshop = config(grace=0.5, scheduler="none", trials=3), Workshop(delays=random.Random(0))
    first = driver_of(plan(made, workshop), store(tmp_path))
    workshop.on_step = lambda gang: first.stop("enough") if gang.step == 5 else None
    asyncio.run(first.run())
    assert first.ended == "enough"
    at_stop = workshop.trained[-1][1]
    assert at_stop in (6, 7)
    workshop.on_step = lambda _: None
    run(plan(made, workshop), store(tmp_path))
    assert workshop.trained[at_stop][1] == at_stop + 1
    assert len(workshop.trained) == len(set(workshop.trained)) == 3 * STEPS


def test_a_budget_ends_a_search_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    made, workshop = config(trials=4), Workshop()
    limit = [3]

    def budget(spent: Any) -> str | None:
        assert spent["seconds"] >= 0
        return "tune.budget.hours: used up" if len(workshop.trained) >= limit[0] else None

    first = run(plan(made, workshop, budget=budget), store(tmp_path))
    assert first.ended == "tune.budget.hours: used up"
    assert not any(trial.share == 1 for trial in first.trials())
    limit[0] = 10**6
    second = run(plan(made, workshop, budget=budget), store(tmp_path))
    assert second.ended is None
    assert any(trial.share == 1 for trial in second.trials())
    assert second.spent()["seconds"] > first.spent()["seconds"]


def test_a_gang_that_waits_for_the_others_is_idle_and_all_hours_have_a_price(tmp_path: Path) -> None:
    class Slow(FakeGang):
        async def advance(self) -> dict[str, Any]:
            await asyncio.sleep(0.05)
            return await super().advance()

    class Place(Workshop):
        def hire(self) -> FakeGang:
            self.hired.append(Slow(self) if not self.hired else FakeGang(self))
            return self.hired[-1]

    made = config(trials=4, scheduler="none", grace=1.0, lag=1)
    driver = run(plan(made, Place(2, workers=2), worker_hour_usd=36.0), store(tmp_path))
    spent = driver.spent()
    assert 0 < spent["idle_worker_seconds"] < spent["worker_seconds"] <= 2 * 2 * spent["seconds"]
    assert spent["usd"] == pytest.approx(spent["worker_seconds"] / 100)
    state = look(store(tmp_path), "runs/m/s", "s")
    assert (state.lag, state.gang_hour_price) == (1, 72.0)
    assert state.cost == pytest.approx(36.0 * state.worker_hours)
    assert 0 < state.idle_worker_hours < state.worker_hours
    again = run(plan(made, Place(2, workers=2)), store(tmp_path))
    assert again.spent()["worker_seconds"] == pytest.approx(spent["worker_seconds"], abs=0.01)


def test_more_trials_go_on_and_what_was_trained_is_kept(tmp_path: Path) -> None:
    workshop = Workshop()
    first = run(plan(config(trials=4), workshop), store(tmp_path))
    steps = len(workshop.trained)
    second = run(plan(config(trials=8), workshop), store(tmp_path))
    assert [trial.values for trial in second.trials()[:4]] == [trial.values for trial in first.trials()]
    assert len(second.trials()) == 8
    assert len(set(workshop.trained)) == len(workshop.trained) > steps
    third = run(plan(config(trials=8), workshop), store(tmp_path))
    assert third.decisions.works == second.decisions.works
    assert told(third.trials()) == told(second.trials())


def test_a_gang_that_is_lost_is_replaced_and_its_trial_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    lost: list[FakeGang] = []

    def on_step(gang: FakeGang) -> None:
        if gang.step == 5 and len(lost) < 2:
            lost.append(gang)
            raise GangLostError("a worker has died")

    workshop = Workshop(on_step=on_step)
    driver = run(plan(config(scheduler="none", trials=2), workshop), store(tmp_path))
    assert [outcome(trial) for trial in driver.trials()] == ["finished", "finished"]
    assert [gang.is_closed for gang in workshop.hired] == [True] * 3
    assert [step for _, step in workshop.trained] == [1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_trial_that_loses_gang_after_gang_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    def on_step(gang: FakeGang) -> None:
        if gang.place and gang.place.source.endswith("/0"):
            raise GangLostError("a worker has died")

    driver = run(plan(config(scheduler="none", trials=2, max_failures=1), Workshop(on_step=on_step)), store(tmp_path))
    assert [trial.error for trial in driver.trials()] == ["a worker has died", None]


def test_a_trial_that_cannot_work_fails_once_with_its_reason(tmp_path: Path) -> None:
    def on_step(gang: FakeGang) -> None:
        if gang.place and gang.place.source.endswith("/1"):
            raise TrialError("no such activation")

    workshop = Workshop(on_step=on_step)
    driver = run(plan(config(trials=6), workshop), store(tmp_path))
    assert driver.trials()[1].error == "no such activation"
    assert len(workshop.hired) == 1
    assert best_first(driver.trials(), [LOSS])[-1].number == 1


def test_failures_in_a_row_end_the_search_with_the_first_reason(tmp_path: Path) -> None:
    def on_step(gang: FakeGang) -> None:
        raise TrialError(f"no rate {gang.values['learning_rate']:.3f}")

    workshop = Workshop(on_step=on_step)
    driver = driver_of(plan(config(trials=20), workshop), store(tmp_path))
    with pytest.raises(TrainingError, match=r"^5 trials in a row failed; the first: no rate 0\.\d+$"):
        asyncio.run(driver.run())
    assert all(gang.is_closed for gang in workshop.hired)


def test_a_metric_that_is_no_number_ends_its_trial_at_once(tmp_path: Path) -> None:
    def loss(values: Any, step: int) -> float:
        return math.nan if values["learning_rate"] > 0.5 else loss_of(values, step)

    workshop = Workshop(loss=loss)
    driver = run(plan(config(scheduler="none", trials=6), workshop), store(tmp_path))
    for trial in driver.trials():
        is_high = trial.values["learning_rate"] > 0.5
        assert trial.error == ("loss: not finite at step 2" if is_high else None)
        assert len([step for rate, step in workshop.trained if rate == trial.values["learning_rate"]]) == (
            2 if is_high else STEPS
        )
    assert best_first(driver.trials(), [LOSS])[0].error is None


def test_out_of_memory_halves_the_micro_batch_of_its_trial_on_any_gang_and_is_recorded(tmp_path: Path) -> None:
    sizes: list[tuple[bool, int]] = []

    def on_step(gang: FakeGang) -> None:
        size, is_first = gang.limit or 8, bool(gang.place and gang.place.source.endswith("/0"))
        sizes.append((is_first, size))
        if is_first and size > 2:
            raise MemoryOutError(f"out of memory with {size}", size // 2)

    made = config(scheduler="median", trials=4, lag=2)
    driver = run(plan(made, Workshop(2, on_step=on_step, delays=random.Random(0))), store(tmp_path))
    assert not any(trial.error for trial in driver.trials())
    of_first = [driver.decisions.results[work.number] for work in driver.decisions.works if work.trial == 0]
    assert len(of_first) > 1
    assert {result.micro_batch for result in of_first} == {2}
    assert [size for is_first, size in sizes if is_first and size > 2] == [8, 4]
    assert {size for is_first, size in sizes if not is_first} == {8}


def test_a_driver_that_was_suspended_writes_nothing_after_another_has_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, workshop = config(trials=4), Workshop()
    monkeypatch.setattr(drivers, "SUSPENDED_SECONDS", -1.0)  # each turn of the loop is the first after a suspension
    first = driver_of(plan(made, workshop), store(tmp_path))
    taken: list[Driver] = []

    def on_step(gang: FakeGang) -> None:
        if not taken and len(workshop.trained) == 3:
            first._journal.flush()
            taken.append(driver_of(plan(made, Workshop()), store(tmp_path)))
            taken[0]._journal.flush()

    workshop.on_step = on_step
    with pytest.raises(ResourceError, match=r"^search s of m: another process has taken it over"):
        asyncio.run(first.run())
    journal = tmp_path / "runs/m/s/journal"
    newest = max(journal.iterdir())
    assert '"driver"' in newest.read_text()
    assert all(gang.is_closed for gang in workshop.hired)


def test_another_objective_model_or_data_is_refused_with_what_differs(tmp_path: Path) -> None:
    run(plan(config(trials=2), Workshop(), contract={"data": "a", "train.seed": 0}), store(tmp_path))
    with pytest.raises(ConfigError, match=r"^data: 'b' given, but search s of m was begun with 'a'"):
        run(plan(config(trials=2), Workshop(), contract={"data": "b", "train.seed": 0}), store(tmp_path))


def test_a_trial_that_a_user_stops_goes_on_no_further_and_a_clone_starts_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "REQUEST_SECONDS", 0.0)
    monkeypatch.setattr(drivers, "TICK_SECONDS", 0.005)
    place = store(tmp_path)
    workshop = Workshop(delays=random.Random(0))
    asked: list[int] = []

    def on_step(gang: FakeGang) -> None:
        if gang.place and gang.place.source.endswith("/0") and gang.step == 3 and not asked:
            asked.append(0)
            ask(place, "runs/m/s", Request("stop", 0))
            ask(place, "runs/m/s", Request("clone", 0, {"learning_rate": 0.3}))

    workshop.on_step = on_step
    driver = run(plan(config(scheduler="none", trials=3), workshop), place)
    stopped, *others, clone = driver.trials()
    assert (outcome(stopped), stopped.stopped) == ("stopped", "stopped by a user")
    assert {outcome(trial) for trial in (*others, clone)} == {"finished"}
    assert len(driver.trials()) == driver.decisions.wanted == 4
    assert clone.origin
    assert clone.origin.trial == 0
    first = min(step for rate, step in workshop.trained if rate == 0.3)
    assert first == stopped.at(clone.origin.share).scores[-1].step + 1 > 1
    assert place.list("runs/m/s/requests") == []
    again = run(plan(config(scheduler="none", trials=3), workshop), place)
    assert told(again.trials()) == told(driver.trials())
    state = look(place, "runs/m/s", "s")
    assert told(list(state.trials)) == told(driver.trials())
    assert (state.wanted, state.note, state.searched) == (3, "", ("learning_rate",))


def test_a_search_is_looked_at_while_it_runs(tmp_path: Path) -> None:
    place, seen = store(tmp_path), []

    def on_change(driver: Driver) -> None:
        driver._journal.flush()
        if driver.running:
            seen.append((told(list(look(place, "runs/m/s", "s").trials)), told(driver.trials())))

    asyncio.run(driver_of(plan(config(trials=3), Workshop()), place, on_change).run())
    assert len(seen) > 5
    assert all(there == here for there, here in seen)


def test_workers_that_do_not_start_end_the_search_and_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(gang: FakeGang) -> None:
        raise GangLostError("no module named net")

    monkeypatch.setattr(FakeGang, "start", start)
    workshop = Workshop()
    with pytest.raises(TrainingError, match=r"^workers do not start: no module named net$"):
        run(plan(config(trials=4), workshop), store(tmp_path))
    assert [gang.is_closed for gang in workshop.hired] == [True] * drivers.FAILED_STARTS


def test_without_a_lag_a_decision_sees_all_results_that_are_there(tmp_path: Path) -> None:
    driver = run(plan(config(trials=6, lag="none"), Workshop()), store(tmp_path))
    assert all(work.seen == ((work.number - 1,) if work.number else ()) for work in driver.decisions.works)


def test_checkpoints_that_nobody_needs_are_deleted_and_the_worst_above_the_size(tmp_path: Path) -> None:
    place = store(tmp_path)
    driver = run(plan(config(trials=8), Workshop()), place)
    paused = [trial for trial in best_first(driver.trials(), [LOSS]) if outcome(trial) == "paused"]
    assert len(paused) > 3
    for trial in driver.trials():
        place.write_bytes(f"runs/m/s/trials/{trial.number}/001/00000002-a/rank-00000/x", bytes(10))
    gone = retain(place, "runs/m/s", driver.trials(), (LOSS,), 25)
    assert gone == [trial.number for trial in reversed(paused[2:])]
    left = {entry.key.split("/")[4] for entry in place.list("runs/m/s/trials")}
    assert left == {str(trial.number) for trial in paused[:2]}


def test_a_request_that_makes_no_sense_is_deleted_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drivers, "REQUEST_SECONDS", 0.0)
    place = store(tmp_path)
    place.write_bytes("runs/m/s/requests/1.json", b"{")
    place.write_bytes("runs/m/s/requests/2.json", b'{"kind": "stop", "trial": 0, "colour": "red"}')
    for request in (Request("stop", 9), Request("clone", 9, {}), Request("paint", 0)):
        ask(place, "runs/m/s", request)
    driver = run(plan(config(scheduler="none", trials=2), Workshop()), place)
    assert [outcome(trial) for trial in driver.trials()] == ["finished", "finished"]
    assert place.list("runs/m/s/requests") == []
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "1.json is no request" in line]
    assert [line for line in said if "2.json is no request" in line]
    assert {line for line in said if "cannot be" in line} == {
        "stop of trial 9 is asked for, which cannot be",
        "clone of trial 9 is asked for, which cannot be",
        "paint of trial 0 is asked for, which cannot be",
    }


class Failing(LocalStore):
    """A storage that cannot be listed below some folders."""

    def list(self, prefix: str = "") -> list[Entry]:
        if prefix.endswith(("requests", "trials")):
            raise StorageError(f"{prefix}: does not answer")
        return super().list(prefix)


def test_a_storage_that_does_not_answer_questions_of_others_ends_no_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = run(plan(config(scheduler="none", trials=2), Workshop()), Failing(str(tmp_path)))
    assert [outcome(trial) for trial in driver.trials()] == ["finished", "finished"]
    assert "does not answer; the search goes on and tries again" in caplog.text


def test_a_driver_whose_lease_was_lost_stores_and_deletes_nothing_more(tmp_path: Path) -> None:
    place, workshop = store(tmp_path), Workshop(delays=random.Random(0))
    driver = driver_of(plan(config(scheduler="none", trials=3), workshop), place)
    known: list[int] = []

    def on_step(gang: FakeGang) -> None:
        if len(workshop.trained) == 12:
            driver._journal.flush()
            driver._journal.lose()
            known.append(len(place.list("runs/m/s/journal")))

    workshop.on_step = on_step
    with pytest.raises(ResourceError, match=r"^search s of m: another process has taken it over"):
        asyncio.run(driver.run())
    assert len(place.list("runs/m/s/journal")) == known[0]
    assert not any(gang.is_stopping for gang in workshop.hired)
    assert all(gang.is_closed for gang in workshop.hired)


def test_a_stop_does_not_wait_for_a_gang_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(gang: FakeGang) -> None:
        if len(workshop.hired) > 1:
            await asyncio.sleep(3600)  # no resources come
        gang.is_up = gang.is_ready = True

    monkeypatch.setattr(FakeGang, "start", start)
    monkeypatch.setattr(drivers, "TICK_SECONDS", 0.005)
    workshop = Workshop(2, delays=random.Random(0))
    driver = driver_of(plan(config(scheduler="none", trials=3), workshop), store(tmp_path))
    workshop.on_step = lambda gang: driver.stop("enough") if len(workshop.trained) == 5 else None
    asyncio.run(asyncio.wait_for(driver.run(), 30))
    assert driver.ended == "enough"
    assert [gang.is_closed for gang in workshop.hired] == [True, True]
