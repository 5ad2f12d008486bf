"""The trials of a search in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from heliostat.infra import tracking, waiting
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import start_run
from heliostat.infra.waiting import Waiting
from heliostat.tune.reports.tracking import TrialRuns, logging_trials
from heliostat.tune.trials import Trial
from tests.trials import CONFIRMED, state, trial

FINISHED, PAUSED = trial(0, [0.5, 0.9, 0.7, 0.8]), trial(1, [0.6, 0.7])
FAILED, STOPPED = trial(2, [0.5], error="loss is [nan]\nat step 7"), trial(3, [0.4], stopped="by a user")
GOING = trial(4, [0.5], until=1)
ALL = [FINISHED, PAUSED, FAILED, STOPPED, GOING]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> StorageConfig:
    """Making MLflow's tables takes over a second: each test has a search of its own in them."""
    return StorageConfig(url=str(tmp_path_factory.mktemp("storage")))


@pytest.fixture(autouse=True)
def in_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def search(storage: StorageConfig, trials: Sequence[Trial], parent: str | None = None, **more: Any) -> str:
    """Logs the trials, in the run `parent` of a search that was there before if it is given; returns its id."""
    with start_run(storage, "sentiment", "search", {}, {}, run_id=parent) as run:
        TrialRuns(storage, "sentiment", run, is_resumed=parent is not None).log(state(trials), **more)
    assert run.id
    return run.id


def children(storage: StorageConfig, parent: str) -> dict[str, Any]:
    client = tracking.client(storage)
    experiment = client.get_experiment_by_name("sentiment").experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    by_name = {one.info.run_name: one for one in found}
    assert len(by_name) == len(found), "no trial has two runs"
    return by_name


def curve(storage: StorageConfig, run: Any, metric: str) -> dict[int, float]:
    history = tracking.client(storage).get_metric_history(run.info.run_id, metric)
    assert len({one.step for one in history}) == len(history), "no step is told twice"
    return {one.step: one.value for one in history}


def test_trials_that_have_ended_are_children_with_their_learning_curves(storage: StorageConfig) -> None:
    found = children(storage, search(storage, ALL))
    assert found.keys() == {"trial-0", "trial-2", "trial-3"}
    assert curve(storage, found["trial-0"], "accuracy") == {10: 0.5, 20: 0.9, 30: 0.7, 40: 0.8}
    assert found["trial-0"].data.params == {"learning_rate": "0.1", "schedule": "cosine"}
    assert found["trial-0"].data.metrics["seconds"] == 6.0
    assert {name: one.info.status for name, one in found.items()} == {
        "trial-0": "FINISHED",
        "trial-2": "FAILED",
        "trial-3": "FINISHED",
    }
    assert {name: one.data.tags["heliostat.outcome"] for name, one in found.items()} == {
        "trial-0": "finished",
        "trial-2": "failed",
        "trial-3": "stopped",
    }
    assert found["trial-2"].data.tags["heliostat.reason"] == "loss is [nan] at step 7"


def test_the_search_has_the_best_so_far_by_the_number_of_trials(storage: StorageConfig) -> None:
    with start_run(storage, "sentiment", "search", {}, {}) as run:
        runs = TrialRuns(storage, "sentiment", run, is_resumed=False)
        for count in (1, 2, 3):
            runs.log(state([STOPPED, replace(PAUSED, stopped="the end"), FINISHED][:count]))
    found = tracking.client(storage).get_metric_history(run.id, "best/accuracy")
    assert [(one.step, one.value) for one in found] == [(1, 0.4), (2, 0.7), (3, 0.9)]


def test_the_end_of_a_search_logs_paused_trials_too(storage: StorageConfig) -> None:
    found = children(storage, search(storage, ALL, with_paused=True))
    assert found.keys() == {"trial-0", "trial-1", "trial-2", "trial-3"}
    assert found["trial-1"].data.tags["heliostat.outcome"] == "paused"


def test_a_resume_logs_no_trial_twice_and_goes_on_with_those_that_go_on(storage: StorageConfig) -> None:
    parent = search(storage, ALL, with_paused=True)
    known = children(storage, parent)
    before = {name: one.info.run_id for name, one in known.items()}
    promoted = trial(1, [0.6, 0.7, 0.8, 0.85])
    search(storage, [FINISHED, promoted, FAILED, STOPPED, replace(GOING, error="lost")], parent)
    found = children(storage, parent)
    assert {name: found[name].info.run_id for name in before} == before
    assert found.keys() == {*before, "trial-4"}
    assert curve(storage, found["trial-1"], "accuracy") == {10: 0.6, 20: 0.7, 30: 0.8, 40: 0.85}
    assert found["trial-1"].data.tags["heliostat.outcome"] == "finished"
    assert found["trial-1"].info.status == "FINISHED"
    for name in ("trial-0", "trial-2", "trial-3"):
        assert found[name].info.end_time == known[name].info.end_time, "nothing is told of it again"


def test_a_failed_trial_that_is_tried_again_is_no_longer_marked(storage: StorageConfig) -> None:
    parent = search(storage, [FAILED])
    search(storage, [trial(2, [0.5, 0.6, 0.6, 0.7])], parent)
    found = children(storage, parent)["trial-2"]
    assert (found.info.status, found.data.tags["heliostat.outcome"]) == ("FINISHED", "finished")
    assert found.data.tags["heliostat.reason"] == ""


def test_a_trial_whose_run_waits_in_storage_is_not_logged_again(storage: StorageConfig) -> None:
    parent = search(storage, [])
    tags = {"mlflow.parentRunId": parent, "heliostat.trial": "0", "heliostat.outcome": "finished"}
    waiting.keep(storage, Waiting("sentiment", "trial-0", tags=tags))
    search(storage, [FINISHED, STOPPED], parent)
    assert children(storage, parent).keys() == {"trial-3"}


def test_states_are_logged_beside_the_search_and_the_last_one_before_its_end(storage: StorageConfig) -> None:
    with (
        start_run(storage, "sentiment", "search", {}, {}) as run,
        logging_trials(storage, "sentiment", run, is_resumed=False) as log,
    ):
        for count in range(len(ALL) + 1):
            log(state(ALL[:count]))
    assert run.id
    assert children(storage, run.id).keys() == {"trial-0", "trial-1", "trial-2", "trial-3"}


def test_a_search_that_breaks_off_keeps_what_had_ended_and_no_paused_trial(storage: StorageConfig) -> None:
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        start_run(storage, "sentiment", "search", {}, {}) as run,
        logging_trials(storage, "sentiment", run, is_resumed=False) as log,
    ):
        log(state(ALL))
        raise KeyboardInterrupt
    assert run.id
    assert children(storage, run.id).keys() == {"trial-0", "trial-2", "trial-3"}


def test_a_run_on_another_seed_says_so_and_the_search_has_the_mean_of_the_best(storage: StorageConfig) -> None:
    parent = search(storage, CONFIRMED)
    found = children(storage, parent)
    assert {name: one.data.tags["heliostat.role"] for name, one in found.items() if name in ("trial-1", "trial-6")} == {
        "trial-1": "first",
        "trial-6": "confirmation",
    }
    assert found["trial-6"].data.params["train.seed"] == "1000"
    best = tracking.client(storage).get_run(parent).data.metrics["best/accuracy"]
    assert best == pytest.approx(0.84)
