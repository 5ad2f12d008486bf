"""The data of every searched value are prepared before trials run, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError
from heliostat.pipeline import prepare, trial_jobs
from heliostat.pipeline.trial_jobs import TrialJobs
from heliostat.spec import Spec, load_spec
from heliostat.train.data.prepared import Prepared
from heliostat.view.terminal import View

QUIET = View(Console(quiet=True))


class Preparing:
    """Data that follow from `data.max_length` alone; which were prepared, and for which lengths it was asked."""

    def __init__(self) -> None:
        self.known = {256: prepared(256)}
        self.ran: list[int] = []

    def find(self, spec: Spec) -> Prepared | None:
        return self.known.get(spec.data.max_length)

    def run(self, spec: Spec, _: View) -> Prepared:
        self.ran.append(spec.data.max_length)
        return self.known.setdefault(spec.data.max_length, prepared(spec.data.max_length))


def prepared(length: int) -> Prepared:
    return Prepared(f"of-{length}", "u", Path(), (), {})


@pytest.fixture
def preparing(monkeypatch: pytest.MonkeyPatch) -> Preparing:
    made = Preparing()
    monkeypatch.setattr(prepare, "prepared_data", made.find)
    monkeypatch.setattr(prepare, "run", made.run)
    monkeypatch.setattr(trial_jobs, "make_job", lambda spec, data, name: Made(data.fingerprint))
    return made


class Made:
    """A job that says which data it is on."""

    def __init__(self, data: str) -> None:
        self.data = data

    def model_dump(self, mode: str) -> dict[str, Any]:
        return {"data": self.data}


def jobs(space: dict[str, Any], recipe: str = "sentiment") -> TrialJobs:
    values = load_spec(recipe).model_dump(mode="json", exclude_unset=True)
    values["data"]["max_length"] = 256
    spec = build(Spec, {**values, "tune": {"space": space}})
    return TrialJobs(spec, "s", prepared(256))


def test_data_of_each_listed_value_are_prepared_once_before_and_shared(preparing: Preparing) -> None:
    made = jobs({"data.max_length": {"grid": [64, 128, 256]}, "learning_rate": {"uniform": [1e-5, 1e-4]}})
    made.prepare(QUIET)
    assert preparing.ran == [64, 128]
    for length in (64, 256, 64, 128):
        assert made({"data.max_length": length, "learning_rate": 1e-5}) == {"data": f"of-{length}"}
    assert preparing.ran == [64, 128]


def test_a_key_under_a_condition_is_prepared_for_its_values_and_without_them(preparing: Preparing) -> None:
    space = {
        "learning_rate": {"choice": [1e-5, 1e-4]},
        "data.max_length": {"choice": [64], "when": {"learning_rate": 1e-5}},
    }
    made = jobs(space)
    made.prepare(QUIET)
    assert preparing.ran == [64]
    assert made({"learning_rate": 1e-4}) == {"data": "of-256"}


def test_a_search_of_train_alone_prepares_nothing(preparing: Preparing) -> None:
    jobs({"learning_rate": {"uniform": [1e-5, 1e-4]}, "train.warmup": {"choice": [0.0, 0.1]}}).prepare(QUIET)
    assert preparing.ran == []


def test_a_range_is_allowed_where_all_of_it_has_the_same_data(preparing: Preparing) -> None:
    made = jobs({"train.weight_decay": {"uniform": [0, 1]}, "model.mlp.dropout": {"uniform": [0, 0.5]}}, "tabular")
    made.prepare(QUIET)
    assert made({"train.weight_decay": 0.5, "model.mlp.dropout": 0.25}) == {"data": "of-256"}
    assert preparing.ran == []


def test_a_range_of_which_each_value_has_data_of_its_own_is_refused(
    preparing: Preparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "prepared_data", lambda _: None)
    with pytest.raises(ConfigError, match=r"^tune\.space\.model\.mlp\.dropout: a range given, and each of its values"):
        jobs({"model.mlp.dropout": {"uniform": [0, 0.5]}}, "tabular").prepare(QUIET)


def test_more_data_than_a_search_should_prepare_are_refused(preparing: Preparing) -> None:
    with pytest.raises(
        ConfigError, match=r"^tune\.space: 100 combinations of data\.max_length given.*; 64 are allowed"
    ):
        jobs({"data.max_length": {"randint": [17, 116]}}).prepare(QUIET)
    assert preparing.ran == []


def test_a_value_outside_of_the_space_whose_data_are_not_there_is_one_line(preparing: Preparing) -> None:
    made = jobs({"data.max_length": {"grid": [64, 256]}})
    made.prepare(QUIET)
    with pytest.raises(ConfigError, match=r"^the data of \{'data\.max_length': 99\} are not prepared; values of tune"):
        made({"data.max_length": 99})
