"""The files of a search, as programs read them."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from heliostat.tune.reports.files import FIXED, to_csv, to_json
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Origin, Trial
from tests.trials import CONFIRMED, state, trial

ERROR = 'a, "b" [/close]\nTraceback: ; \r\n=1+1'
KEYS = ("learning_rate", "train.adapter.rank", "schedule")
VALUES = {"learning_rate": 1e-3, "train.adapter.rank": None, "schedule": ["a", 1]}
TRIALS = [
    trial(0, [0.5, 0.25], VALUES, origin=Origin(7, 0.25)),
    trial(1, [math.nan], {"learning_rate": 1e-4, "schedule": True}, error=ERROR),
]


def read(found: SearchState) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(found))))


def test_a_trial_is_a_line_with_what_is_known_of_it() -> None:
    first, second = read(state(TRIALS, repeated_steps={0: 3}, gang_hour_price=3600))
    known = ["0", "paused", "", "0.5", "20", "3", "3.0", "3.0", "true", "", "7", "0.25", "", "0", "first"]
    fixed = dict(zip(FIXED, [*known, *[""] * (len(FIXED) - len(known))], strict=True))
    assert first == fixed | {
        "values.learning_rate": "0.001",
        "values.train.adapter.rank": "null",
        "values.schedule": '["a", 1]',
        "best.accuracy": "0.25",  # with the weights that it took over
        "best.loss": "0.75",
        "last.accuracy": "0.25",
        "last.loss": "0.75",
    }
    assert second["reason"] == 'a, "b" [/close] Traceback: ; =1+1'
    assert (second["values.schedule"], second["values.train.adapter.rank"]) == ("true", "")
    assert (second["best.accuracy"], second["last.accuracy"]) == ("", "nan")
    assert len(to_csv(state(TRIALS)).splitlines()) == 3


def test_the_columns_are_the_same_whatever_happened() -> None:
    def header(trials: list[Trial]) -> list[str]:
        return to_csv(state(trials, keys=KEYS)).splitlines()[0].split(",")

    every = header(TRIALS)
    assert header(TRIALS[:1]) == header(TRIALS[1:]) == every
    fixed = [*FIXED, *(f"values.{key}" for key in KEYS)]
    assert header([]) == [*fixed, "best.accuracy", "last.accuracy"]
    assert every == [*fixed, "best.accuracy", "best.loss", "last.accuracy", "last.loss"]


def test_json_has_the_same_with_types_and_no_number_that_json_lacks() -> None:
    first, second = json.loads(to_json(state(TRIALS)))
    assert first["values"] == VALUES
    assert first["best"] == {"accuracy": 0.25, "loss": 0.75}
    assert second["last"] == {"accuracy": None, "loss": None}
    assert (first["cost"], second["origin_trial"], second["state"]) == (None, None, "failed")
    assert first.keys() == second.keys() == {*FIXED, "values", "best", "last"}
    assert json.loads(to_json(state([]))) == []


def test_the_row_of_a_configuration_s_first_trial_has_its_mean_and_how_far_it_is_behind() -> None:
    found = {row["trial"]: row for row in json.loads(to_json(state(CONFIRMED)))}
    assert (found[1]["mean"], found[1]["deviation"], found[1]["runs"]) == (pytest.approx(0.84), pytest.approx(0.01), 3)
    assert (found[1]["behind"], found[1]["failed_runs"], found[0]["runs"]) == (None, 0, 3)
    assert [found[0][name] for name in ("behind", "behind_low", "behind_high")] == pytest.approx(
        [0.03, 0.005159, 0.05484], rel=1e-3
    )
    assert {found[number]["mean"] for number in (2, 3, 8)} == {None}
    assert [(row["trial"], row["role"], row["seed"]) for row in read(state(CONFIRMED))][:2] == [
        ("1", "first", ""),
        ("6", "confirmation", "1000"),
    ]
