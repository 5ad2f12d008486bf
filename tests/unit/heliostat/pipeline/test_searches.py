"""Which search a command goes on with, and what a run takes from one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError, NotFoundError
from heliostat.infra.storage.local import LocalStore
from heliostat.operations import trials
from heliostat.pipeline.searches import check_retry, find_search, searched, write_search
from heliostat.spec import Spec, load_spec
from heliostat.tune.gang import TrialError
from heliostat.tune.lineage import schedule
from heliostat.tune.requests import asked
from heliostat.tune.reruns import NEW_SEEDS
from tests.unit.tune.gangs import SEED, FakeGang, Workshop, config, driver_of, loss_of, plan
from tests.unit.tune.test_population import Population, population


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return load_spec("tabular", [f"storage.url={tmp_path}"])


@pytest.fixture
def ended(spec: Spec) -> list[Any]:
    """The trials of a search of the model that has ended, `found`."""
    made = plan(config(trials=4), Workshop(), name=spec.name, id="found")
    driver = driver_of(made, LocalStore(spec.storage.url))
    asyncio.run(driver.run())
    write_search(spec, "found", {"status": "finished"})
    return driver.trials()


def resuming(spec: Spec, how: str) -> Spec:
    return spec.model_copy(update={"tune": spec.tune.model_copy(update={"resume": how})})


def test_a_new_search_has_a_name_of_its_own(spec: Spec) -> None:
    assert find_search(spec, None, False) != find_search(spec, None, False)
    assert find_search(spec, "mine", False) == "mine"


def test_a_resume_takes_the_newest_or_the_named_one(spec: Spec) -> None:
    for name in ("a", "b"):
        write_search(spec, name, {"status": "running"})
    assert find_search(spec, None, True) == "b"
    assert find_search(spec, "a", True) == "a"
    assert find_search(resuming(spec, "auto"), None, False) == "b"
    write_search(spec, "b", {"status": "stopped"})  # by a budget or a signal
    assert find_search(resuming(spec, "auto"), None, False) == "b"
    write_search(spec, "b", {"status": "finished"})
    assert find_search(resuming(spec, "auto"), None, False).startswith("search-")
    assert find_search(spec, None, True) == "b"  # with more trials, or a larger budget


@pytest.mark.parametrize(
    ("name", "resume", "message"),
    [
        (None, True, r"^--resume: no search yet of tabular in "),
        ("a", True, r"^--resume: no search 'a' of tabular in "),
        ("../a", False, r"^--search: '\.\./a' given; letters"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(spec: Spec, name: str | None, resume: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_search(spec, name, resume)


def test_a_name_that_is_taken_is_refused_unless_it_is_resumed(spec: Spec) -> None:
    write_search(spec, "a", {"status": "finished"})
    with pytest.raises(ConfigError, match=r"^--search: a exists; --resume goes on with it, another name begins a new"):
        find_search(spec, "a", False)


def test_only_failed_trials_of_a_search_that_goes_on_are_tried_again(
    spec: Spec, ended: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_retry(spec, "lost", None, False)
    for retry, resume, said in (
        ("all", True, "^--retry: 'all' given; failed is allowed$"),
        ("failed", False, "^--retry: failed given without --resume; "),
        ("failed", True, "^--retry: failed given, and no trial of found has failed; --resume alone"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_retry(spec, "found", retry, resume)
    state = SimpleNamespace(trials=[*ended, SimpleNamespace(error="no node")])
    monkeypatch.setattr("heliostat.tune.history.look", lambda *_: state)
    check_retry(spec, "found", "failed", True)


def test_a_run_takes_the_values_of_the_best_trial_or_of_a_named_one(spec: Spec, ended: list[Any]) -> None:
    best, trial, said = searched(spec, "found")
    number = int(said.removeprefix("trial ").partition(" ")[0])
    assert trial == f"found/{said.split()[1]}"
    assert ended[number].share == 1
    assert best.train.learning_rate == ended[number].values["learning_rate"]
    other = next(trial.number for trial in ended if trial.number != number)
    assert searched(spec, f"found/{other}")[0].train.learning_rate == ended[other].values["learning_rate"]
    with pytest.raises(ConfigError, match=r"^--from-search: found/9 given; trials of found with a result: 0, 1, 2, 3$"):
        searched(spec, "found/9")
    with pytest.raises(NotFoundError, match="no search"):
        searched(spec, "lost")


def test_a_run_repeats_what_led_to_the_weights_of_a_trial(spec: Spec) -> None:
    made = population(Population(), name=spec.name, id="found")
    driver = driver_of(made, LocalStore(spec.storage.url))
    asyncio.run(driver.run())
    chosen = next(trial for trial in driver.trials() if trial.past)
    past = schedule(driver.trials(), chosen.number)
    found, _, said = searched(spec, f"found/{chosen.number}")
    assert found.train.learning_rate == chosen.values["learning_rate"]
    stages = [(stage.until, {"learning_rate": stage.learning_rate}) for stage in found.train.stages]
    assert stages == past[:-1] != []
    first, last = (values["learning_rate"] for _, values in (past[0], past[-1]))
    assert said.startswith(f"trial {chosen.number} of found: learning_rate={first} until {past[0][0]:.1%}; ")
    assert said.endswith(f"; learning_rate={last}")


def refused(spec: Spec, paused: int, finished: int) -> list[tuple[Callable[[], object], str]]:
    """Requests that make no sense, and what is said of them."""
    name, place = spec.name, spec.storage
    return [
        (lambda: trials.stop(name, place, finished), "has finished; one that can go on is needed"),
        (lambda: trials.stop(name, place, 9), "trial 9: found has trials 0 to 3"),
        (lambda: trials.clone(name, place, finished, ["learning_rate=1"]), "a clone goes on with one"),
        (lambda: trials.clone(name, place, paused, ["rate=1"]), "rate: not searched by found"),
        (lambda: trials.clone(name, place, paused, ["learning_rate"]), "write KEY=VALUE"),
    ]


def test_stops_and_clones_are_left_for_the_driver_and_senseless_ones_refused(spec: Spec, ended: list[Any]) -> None:
    paused, finished = (
        next(trial.number for trial in ended if (trial.share == 1) == is_finished) for is_finished in (False, True)
    )
    assert "takes it up" in trials.stop(f"{spec.name}/found", spec.storage, paused)
    assert "asked for" in trials.clone(spec.name, spec.storage, paused, ["learning_rate=0.25"])
    left = [
        (one.kind, one.trial, dict(one.values)) for one in asked(LocalStore(spec.storage.url), "runs/tabular/found")
    ]
    assert left == [("stop", paused, {}), ("clone", paused, {"learning_rate": 0.25})]
    for call, message in refused(spec, paused, finished):
        with pytest.raises(ConfigError, match=message):
            call()
    with pytest.raises(NotFoundError, match="other: no search yet in"):
        trials.look_at("other", spec.storage)


def test_a_run_takes_the_winner_on_new_seeds_with_the_spec_s_own_seed(spec: Spec) -> None:
    made = plan(config(trials=4, scheduler="none", confirm=2), Workshop(loss=misled), name=spec.name, id="sure")
    driver = driver_of(made, LocalStore(spec.storage.url))
    asyncio.run(driver.run())
    write_search(spec, "sure", {"status": "finished"})
    first, second = (one.confirms for one in driver.trials()[4:6])
    best, _, said = searched(spec, "sure")
    assert said.startswith(f"trial {second} of sure: "), f"trial {first} is the best on the first seed only"
    assert best.train.seed == spec.train.seed
    assert searched(spec, "sure/5")[0].train.seed == SEED + NEW_SEEDS


def test_no_run_on_another_seed_is_the_best_of_its_own(spec: Spec) -> None:
    def on_step(gang: FakeGang) -> None:
        if "train.seed" not in gang.values:
            raise TrialError("loss exploded")

    workshop = Workshop(on_step=on_step)
    made = plan(config(trials=1, repeats=2, scheduler="none"), workshop, name=spec.name, id="lost")
    driver = driver_of(made, LocalStore(spec.storage.url))
    asyncio.run(driver.run())
    assert driver.trials()[1].share == 1
    with pytest.raises(ConfigError, match=r"^--from-search: lost given; trials of lost with a result: 1$"):
        searched(spec, "lost")


def test_a_run_on_another_seed_is_no_origin_of_clones(spec: Spec) -> None:
    made = plan(config(trials=2, repeats=2), Workshop(), name=spec.name, id="twice")
    driver = driver_of(made, LocalStore(spec.storage.url))
    asyncio.run(driver.run())
    paused = next(one for one in driver.trials() if one.share < 1 and one.repeats is not None)
    with pytest.raises(ConfigError, match=rf"runs trial {paused.configuration} on another seed; clone that one$"):
        trials.clone(f"{spec.name}/twice", spec.storage, paused.number, ["learning_rate=0.25"])


def misled(values: Any, step: int) -> float:
    """What is best on the first seed is worst on all others."""
    loss = loss_of(values, step)
    return 1 - loss if "train.seed" in values else loss
