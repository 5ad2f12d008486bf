"""Only the driver of a search writes what is kept and shown of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from heliostat.infra.errors import ResourceError, TrainingError
from heliostat.infra.storage.local import LocalStore
from heliostat.pipeline import tune
from heliostat.pipeline.tune import contract, make_plan
from heliostat.spec import Spec, load_spec
from heliostat.train.data.prepared import Prepared
from heliostat.tune import search
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Begin, Continue, Score, Trial
from heliostat.view.terminal import View
from tests.unit.tune.gangs import Workshop, config, driver_of, plan

QUIET = View(Console(quiet=True))
PREPARED = Prepared("f", "u", Path(), (), {})


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return load_spec("tabular", [f"storage.url={tmp_path}"])


def test_a_search_that_another_process_runs_is_refused_before_anything_is_written(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def taken(*_: Any) -> Iterator[None]:
        raise ResourceError("search s is in use")
        yield

    monkeypatch.setattr(tune, "make_plan", lambda *_: plan(config(), Workshop()))
    monkeypatch.setattr(search, "driving", taken)
    with pytest.raises(ResourceError, match="in use"):
        tune.run(spec, PREPARED, QUIET, "s")
    assert list(tmp_path.rglob("*")) == []


def told(spec: Spec, tmp_path: Path, changes: int, error: Exception | None) -> list[SearchState]:
    """What followers are told by a driver that says so often, at once, that something has changed."""
    seen: list[SearchState] = []
    made = plan(config(), Workshop())
    driver = driver_of(made, LocalStore(str(tmp_path)))
    with tune._told(spec, made, driver, (seen.append,)):
        for _ in range(changes):
            driver.on_change(driver)
        driver.ended = "at last"
        if error:
            raise error
    return seen


def test_followers_are_told_now_and_then_and_at_last(spec: Spec, tmp_path: Path) -> None:
    states = told(spec, tmp_path, 1000, None)
    assert 2 <= len(states) < 20
    assert [state.note for state in states] == [""] * (len(states) - 1) + ["at last"]


@pytest.mark.parametrize(("error", "is_told"), [(TrainingError("x"), True), (ResourceError("taken over"), False)])
def test_at_last_unless_the_search_is_another_process_s(
    spec: Spec, tmp_path: Path, error: Exception, is_told: bool
) -> None:
    seen: list[SearchState] = []
    made = plan(config(), Workshop())
    driver = driver_of(made, LocalStore(str(tmp_path)))
    with pytest.raises(type(error)), tune._told(spec, made, driver, (seen.append,)):
        raise error
    assert bool(seen) == is_told


def test_a_search_that_ended_before_any_validation_says_what_ended_it(tmp_path: Path) -> None:
    driver = driver_of(plan(config(), Workshop()), LocalStore(str(tmp_path)))
    tune.check_has_scores("search s of m", driver)
    driver.ended = "tune.budget.usd: 0.001 used up"
    with pytest.raises(TrainingError, match=r"^search s of m: tune.budget.usd: 0.001 used up before a trial was valid"):
        tune.check_has_scores("search s of m", driver)


def test_other_data_are_another_search_though_a_key_of_data_is_searched(spec: Spec) -> None:
    searched = spec.model_copy(
        update={"tune": config(space={"data.max_length": {"choice": [8]}, "model.mlp.hidden": {"choice": [[8]]}})}
    )
    found = contract(searched, PREPARED)
    assert found["data"] == "f"
    assert "model.mlp" not in found
    assert found["train.learning_rate"] == spec.train.learning_rate
    assert "train.learning_rate" not in contract(spec, PREPARED)


@pytest.mark.parametrize(("factor", "promotes"), [(2, True), (3, False)])
def test_one_of_reduction_factor_trials_is_promoted(spec: Spec, factor: float, promotes: bool) -> None:
    train = spec.train.model_copy(update={"use_gpu": False})
    searched = spec.model_copy(update={"tune": config(scheduler="asha", reduction_factor=factor), "train": train})
    scheduler = make_plan(searched, PREPARED, lambda values, past: dict(values), "s").scheduler
    two = [Trial(number, {}, 0.25, (Score(0.25, 2, {"loss": number}),)) for number in range(2)]
    assert scheduler.decide(two, may_begin=True) == (Continue(0, 0.5) if promotes else Begin(0.25))
