"""A search with several objectives: as one with a single one, from the spec to what a run takes of it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import ConfigError
from heliostat.infra.storage.local import LocalStore
from heliostat.pipeline.searches import searched
from heliostat.pipeline.tune import make_plan
from heliostat.spec import Spec, load_spec
from heliostat.train.data.prepared import Prepared
from heliostat.tune.choice import choose
from heliostat.tune.driver import Driver
from heliostat.tune.history import look
from heliostat.tune.ranking import outcome, pareto_front
from heliostat.tune.search import driving
from heliostat.tune.trials import Objective
from tests.unit.tune.gangs import LOSS, Workshop, config, cuts, plan, run

SIZE = Objective("parameters", "min")
BOTH = (LOSS, SIZE)
PREPARED = Prepared("f", "u", Path(), (), {})


def size(values: Mapping[str, Any], step: int) -> dict[str, float]:
    """Least at a rate of 0.6, where the loss is least at 0.3."""
    return {"parameters": 0.1 + abs(float(values["learning_rate"]) - 0.6)}


def searching(folder: Path, workshop: Workshop, **changes: Any) -> Driver:
    made = config(**{"trials": 12, "search": "tpe", **changes})
    return run(plan(made, workshop, BOTH, name="tabular"), LocalStore(str(folder)))


def test_a_seed_gives_one_search_with_any_number_of_gangs(tmp_path: Path) -> None:
    found = []
    for room in (1, 2, 5):
        driver = searching(tmp_path / str(room), Workshop(room, more=size, delays=random.Random(room)))
        found.append((driver.decisions.works, [[one.metrics for one in trial.scores] for trial in driver.trials()]))
    assert found[0] == found[1] == found[2]
    assert {outcome(trial) for trial in driver.trials()} == {"finished", "paused"}
    assert len(pareto_front(driver.trials(), BOTH)) > 1


def test_killed_after_any_write_it_ends_as_one_left_alone(tmp_path: Path) -> None:
    alone = Workshop(more=size)
    whole = searching(tmp_path / "whole", alone, trials=6)
    for folder in cuts(tmp_path / "whole", tmp_path, "runs/tabular/s"):
        driver = searching(folder, Workshop(2, more=size, stored=set(alone.stored)), trials=6)
        assert driver.decisions.works == whole.decisions.works
        assert choose(driver.trials(), BOTH, "knee") == choose(whole.trials(), BOTH, "knee")


def test_a_trial_without_a_number_for_one_of_them_fails_and_says_for_which(tmp_path: Path) -> None:
    workshop = Workshop(more=lambda values, step: {} if step > 2 else {"parameters": 1.0})
    driver = searching(tmp_path, workshop, trials=2, scheduler="none")
    assert {trial.error for trial in driver.trials()} == {"parameters: not finite at step 4"}
    workshop = Workshop(more=lambda *_: {"parameters": math.inf})
    driver = searching(tmp_path / "b", workshop, trials=2, scheduler="none")
    assert {trial.error for trial in driver.trials()} == {"parameters: not finite at step 2"}


def of_run(folder: Path, *overrides: str) -> Spec:
    return load_spec("tabular", [f"storage.url={folder}", "tune.objectives=[loss, parameters]", *overrides])


def test_a_run_takes_what_the_rule_of_its_own_spec_says(tmp_path: Path) -> None:
    driver = searching(tmp_path, Workshop(more=size), scheduler="none", objectives=["loss", "parameters"])
    assert look(LocalStore(str(tmp_path)), "runs/tabular/s", "s").objectives == BOTH
    assert look(LocalStore(str(tmp_path)), "runs/tabular/s", "s").rule == "first"
    taken = {}
    for rule in ("first", "knee", "{parameters: {max: 0.2}}"):
        made = of_run(tmp_path, f"tune.choose={rule}")
        best = choose(driver.trials(), BOTH, made.tune.choose)
        assert best
        found, _, said = searched(made, "s")
        assert found.train.learning_rate == best.values["learning_rate"]
        assert said.startswith(f"trial {best.number} of s")
        taken[rule] = best.number
    assert taken["first"] != taken["{parameters: {max: 0.2}}"]
    assert searched(of_run(tmp_path, "tune.choose={parameters: {max: 0.001}}"), "s/3")[2].startswith("trial 3 of s")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["tune.choose={parameters: {max: 0.001}}"],
            r"^--from-search: s given; tune\.choose: parameters max 0\.001 given",
        ),
        (
            ["tune.objectives=[loss, size_bytes]", "tune.choose={size_bytes: {max: 1}}"],
            r"^tune\.choose\.size_bytes: no objective \(tune\.objectives: loss, parameters\); s has other objectives$",
        ),
    ],
)
def test_a_rule_that_takes_no_trial_is_told_in_a_line(tmp_path: Path, overrides: list[str], line: str) -> None:
    searching(tmp_path, Workshop(more=size), trials=3, scheduler="none")
    with pytest.raises(ConfigError, match=line):
        searched(of_run(tmp_path, *overrides), "s")


def test_a_resume_with_other_objectives_is_refused_with_both(tmp_path: Path) -> None:
    def planned(*overrides: str) -> Any:
        return make_plan(
            of_run(tmp_path, "train.use_gpu=false", *overrides), PREPARED, lambda values, _: dict(values), "s"
        )

    store = LocalStore(str(tmp_path))
    with driving(planned(), store):
        pass
    with driving(planned("tune.choose=knee"), store):  # which may change
        pass
    line = r"^tune\.objectives: 'loss min' given, but search s of tabular was begun with 'loss min, parameters min'"
    with pytest.raises(ConfigError, match=line), driving(planned("tune.objectives=null"), store):
        pass


def test_workers_measure_what_objectives_need_and_nothing_else(tmp_path: Path) -> None:
    spec = of_run(tmp_path, "train.use_gpu=false", "tune.objectives=[latency_ms, f1, records_per_second]")
    assert make_plan(spec, PREPARED, lambda values, _: dict(values), "s").crew.measures == (
        "latency_ms",
        "records_per_second",
    )
    plain = of_run(tmp_path, "train.use_gpu=false", "tune.objectives=null")
    assert make_plan(plain, PREPARED, lambda values, _: dict(values), "s").crew.measures == ()
