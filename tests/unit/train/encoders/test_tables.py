"""Rows of tables as numbers: what is learned from the training split, and what is refused."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heliostat.infra.registry.inputs import CategoryColumn, NumberColumn, TableInputs
from heliostat.train.data.config import Columns
from heliostat.train.encoders.tables import TableEncoder
from heliostat.train.models.bases import INPUTS
from tests.unit.train.prepared import Result, Words, failure, run

HEADER = ("age", "plan", "label")
HALVES = {"validation": 0.25, "test": 0.25}
COLUMNS: dict[str, Any] = {"columns": {"categories": ["plan"]}}


def table(folder: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = HEADER) -> Path:
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / "rows.csv"


def people(count: int) -> list[tuple[object, ...]]:
    draw = random.Random(0)
    return [(draw.randint(18, 90), draw.choice(["free", "paid"]), ("no", "yes")[i % 4 == 0]) for i in range(count)]


def learned(result: Result) -> TableInputs:
    return TableInputs.model_validate_json((result.folder / INPUTS).read_bytes())


def numbers(result: Result, split: str) -> np.ndarray:
    return np.array(result.tables[split]["features"].to_pylist())


def test_columns_are_learned_from_the_training_split_alone(tmp_path: Path) -> None:
    result = run(tmp_path, table(tmp_path, people(400)), TableEncoder(), **COLUMNS)
    age, plan = learned(result).columns
    assert isinstance(age, NumberColumn)
    assert isinstance(plan, CategoryColumn)
    assert plan.values == ("free", "paid")
    train = numbers(result, "train")
    assert train.shape[1] == 3
    assert abs(train[:, 0].mean()) < 1e-6
    assert train[:, 0].std() == pytest.approx(1, abs=1e-6)
    everyone = np.concatenate([numbers(result, split) for split in result.tables])
    assert abs(everyone[:, 0].mean()) > 1e-4, "the other splits are no part of the mean"


def test_a_class_and_a_category_are_one_in_every_format_and_spelling(tmp_path: Path) -> None:
    accents = ("caf\u00e9", "cafe\u0301")
    rows = [
        {"age": i, "member": bool(i % 2), "town": accents[i % 2], "region": float(i % 3), "label": float(i % 2)}
        for i in range(120)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    respelled = [
        (
            i,
            str(row["member"]).lower() if i % 4 < 2 else row["member"],
            row["town"],
            i % 3,
            i % 2 if i % 5 else f"{i % 2}.0",
        )
        for i, row in enumerate(rows)
    ]
    mixed = table(tmp_path, respelled, list(rows[0])).rename(tmp_path / "mixed.csv")
    python_csv = table(tmp_path, [list(row.values()) for row in rows], list(rows[0]))
    options = {
        "columns": {"categories": ["member", "town", "region"]},
        "label_names": {"1.0": "yes"},
        "where": "town == 'caf\u00e9' and label in ['0', '1'] and member in ['true', 'False']",
    }
    for file in (tmp_path / "rows.json", tmp_path / "rows.parquet", python_csv, mixed):
        result = run(tmp_path, file, TableEncoder(), **options)
        assert (result.labels, result.counts["filtered"]) == (["0", "yes"], 0)
        found = {one.name: one.values for one in learned(result).columns if isinstance(one, CategoryColumn)}
        assert found == {"member": ("false", "true"), "town": ("caf\u00e9",), "region": ("0", "1", "2")}


def test_numbers_that_mark_a_missing_value_do_so_in_every_spelling(tmp_path: Path) -> None:
    rows = [*people(200), (-999, "free", "yes"), ("-999.0", "paid", "no"), (5, "free", "-999.0")]
    counts = run(tmp_path, table(tmp_path, rows), TableEncoder(), **COLUMNS, missing="drop", na_values=["-999"]).counts
    assert counts["empty"] == 3


def test_rows_that_are_the_same_all_stay_and_in_one_split(tmp_path: Path) -> None:
    rows = [(20 + i % 30, "free", ("no", "yes")[i % 2]) for i in range(300)]
    result = run(tmp_path, table(tmp_path, rows), TableEncoder(), **COLUMNS)
    assert result.counts["duplicates"] == 0
    assert sum(result.counts[split] for split in result.tables) == 300
    assert not result.texts("train") & (result.texts("test") | result.texts("validation"))


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_are_split_in_the_same_shares(tmp_path: Path, seed: int) -> None:
    rows = [
        (draw, "free", "rare" if i < 20 else "common") for i, draw in enumerate(range(seed * 1000, seed * 1000 + 200))
    ]
    split = {"validation": 0.1, "test": 0.2, "stratify": True}
    result = run(tmp_path, table(tmp_path, rows), TableEncoder(), split=split, **COLUMNS)
    found = {name: result.tables[name]["label"].to_pylist() for name in result.tables}
    assert {name: (labels.count("rare"), labels.count("common")) for name, labels in found.items()} == {
        "train": (14, 126),
        "validation": (2, 18),
        "test": (4, 36),
    }


def test_equal_rows_come_as_near_to_their_shares_as_they_can_and_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(20 + i % 25, "free", ("no", "yes")[i % 5 == 0]) for i in range(300)]
    result = run(tmp_path, table(tmp_path, rows), TableEncoder(), split={**HALVES, "stratify": True}, **COLUMNS)
    for split in ("test", "validation"):
        labels = result.tables[split]["label"].to_pylist()
        for label, asked in (("no", 60), ("yes", 15)):
            assert abs(labels.count(label) - asked) <= 6, "half of the twelve rows that are equal"
    shares = "class 'yes' has 12 of its 60 records in test, 15 are asked for (and 1 more); equal records stay in one"
    assert f"data.split.stratify: {shares}" in caplog.text
    assert "class 'no'" not in caplog.text, "240 rows divide evenly"


def test_shares_that_hold_are_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(i, "free", ("no", "yes")[i % 5 == 0]) for i in range(300)]
    run(tmp_path, table(tmp_path, rows), TableEncoder(), split={**HALVES, "stratify": True}, **COLUMNS)
    assert "stratify" not in caplog.text


def test_records_without_classes_cannot_be_stratified(tmp_path: Path) -> None:
    path = table(tmp_path, people(40))
    split = {**HALVES, "stratify": True}
    message = failure(tmp_path, path, Words(labelled=False), split=split, columns={"text": "plan"})
    assert message == "data.split.stratify: true given, and the records have no classes; false is allowed"


def test_a_constant_column_and_one_that_the_spec_leaves_out(tmp_path: Path) -> None:
    rows = [(*row, 7, f"id{i}") for i, row in enumerate(people(200))]
    columns = {"columns": {"features": ["age", "same"]}}
    result = run(tmp_path, table(tmp_path, rows, (*HEADER, "same", "id")), TableEncoder(), **columns)
    _, same = learned(result).columns
    assert isinstance(same, NumberColumn)
    assert (same.mean, same.std) == (7.0, 1.0)
    assert (numbers(result, "train")[:, 1] == 0).all()


def test_missing_values_are_filled_from_the_training_split_or_dropped(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [*people(300), *[("", "paid", "no")] * 5, *[(40, " ", "yes")] * 5]
    source = table(tmp_path, rows)
    filled = run(tmp_path, source, TableEncoder(), missing="fill", **COLUMNS)
    age, plan = learned(filled).columns
    assert isinstance(age, NumberColumn)
    assert age.fill == age.mean
    assert plan.fill in ("free", "paid")
    assert 0 < age.missing < 0.05
    assert 0 < plan.missing < 0.05
    assert filled.counts["empty"] == 0
    dropped = run(tmp_path, source, TableEncoder(), missing="drop", **COLUMNS)
    assert dropped.counts["empty"] == 10
    assert [(column.fill, column.missing) for column in learned(dropped).columns] == [(None, 0)] * 2


@pytest.mark.parametrize(
    ("extra", "options", "message"),
    [
        (("", "paid", "no"), {}, "FILE line 202: data.missing: fail given, and column 'age' is empty; drop and fill"),
        (("nan", "paid", "no"), {}, "FILE line 202: data.missing: fail given, and column 'age' is empty"),
        (
            ("old", "paid", "no"),
            {},
            "FILE line 202: age: 'old' given; a finite number is needed, or its name in data.c",
        ),
        (("inf", "paid", "no"), {}, "FILE line 202: age: 'inf' given; a finite number is needed"),
        (("1_000", "paid", "no"), {}, "FILE line 202: age: '1_000' given; a finite number is needed"),
        ((30, "paid", "no"), {"columns": {}}, "FILE line 2: plan: '"),
        (
            (30, "paid", "no"),
            {"columns": {"categories": ["town"]}},
            "FILE line 2: data.columns.categories: 'town' is n",
        ),
        (
            (30, "paid", "no"),
            {"columns": {"features": ["town"]}},
            "data.columns.features: column 'town' is not in FILE",
        ),
        ((30, "paid", "no"), {"columns": {"features": ["age"], "label": "x"}}, "data.columns.label: column 'x' is not"),
    ],
)
def test_a_table_that_will_not_do_is_refused_by_place(
    tmp_path: Path, extra: tuple[object, ...], options: dict[str, Any], message: str
) -> None:
    said = failure(tmp_path, table(tmp_path, [*people(200), extra]), TableEncoder(), **{**COLUMNS, **options})
    assert said.startswith(message)


def test_a_category_that_training_has_not_seen_is_named(tmp_path: Path) -> None:
    rows = people(200)
    split = {"validation": 0.45, "test": 0.45}
    rows = [(age, f"plan {i}" if i < 40 else "free", label) for i, (age, _, label) in enumerate(rows)]
    said = failure(tmp_path, table(tmp_path, rows), TableEncoder(), split=split, **COLUMNS)
    assert "FILE line" in said
    assert "was not in the training data" in said


def test_too_many_categories_and_too_few_records_of_a_class(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(30, f"name {i}", ("no", "yes")[i % 2]) for i in range(1500)]
    said = failure(tmp_path, table(tmp_path, rows), TableEncoder(), **COLUMNS)
    assert said.startswith("data.columns.categories: column 'plan' has ")
    assert said.endswith("different values in the training split; 1 to 1000 are allowed")
    rows = [*people(100), (30, "free", "lonely")]
    said = failure(tmp_path, table(tmp_path, rows), TableEncoder(), split={"stratify": True}, **COLUMNS)
    assert said == (
        "data.split.stratify: class 'lonely' has 1 records and none in validation; add some, raise "
        "data.split.validation, or leave the class out with data.where"
    )


def test_a_header_with_a_name_twice(tmp_path: Path) -> None:
    said = failure(tmp_path, table(tmp_path, people(50), ("age", "age", "label")), TableEncoder())
    assert said == "FILE: column 'age' is there twice; names that differ are needed"


@pytest.mark.parametrize("shade", [0.1, 0.3, 1e9 + 0.1])
def test_a_column_that_rounding_makes_vary_is_constant(tmp_path: Path, shade: float) -> None:
    rows = [(*row, shade) for row in people(200)]
    same = learned(run(tmp_path, table(tmp_path, rows, (*HEADER, "same")), TableEncoder(), **COLUMNS)).columns[2]
    assert isinstance(same, NumberColumn)
    assert same.std == 1.0
    assert same.numbers(2 * shade) == [pytest.approx(shade)]


@pytest.mark.parametrize("value", [1e200, 1e308])
def test_numbers_too_large_for_a_deviation_are_refused(tmp_path: Path, value: float) -> None:
    rows = [((-1) ** i * value * (1 - i / 1e3), plan, label) for i, (_, plan, label) in enumerate(people(200))]
    said = failure(tmp_path, table(tmp_path, rows), TableEncoder(), **COLUMNS)
    assert re.match(r"column 'age' has values up to [0-9.e+]+, too large for a mean and a deviation; scale it", said)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_row_numbers_that_were_written_unasked_are_no_feature(tmp_path: Path, name: str) -> None:
    source = table(tmp_path, [(i, *row) for i, row in enumerate(people(100))], (name, *HEADER))
    said = failure(tmp_path, source, TableEncoder(), **COLUMNS)
    assert said.startswith(f"data.columns.features: FILE has a column {name!r}, the number of a row most likely; list")
    listed = {"columns": {"features": ["age", "plan"], "categories": ["plan"]}}
    assert [column.name for column in learned(run(tmp_path, source, TableEncoder(), **listed)).columns] == [
        "age",
        "plan",
    ]


@pytest.mark.parametrize("first", [{"age": 1, "label": "no"}, {"age": 1, "town": 2, "label": "no"}])
def test_columns_that_only_some_records_have_must_be_listed(tmp_path: Path, first: dict[str, Any]) -> None:
    records = [first, *[{"age": i, "label": ("no", "yes")[i % 2], **({"town": i} if i % 5 else {})} for i in range(60)]]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    for missing in ("fail", "drop", "fill"):
        said = failure(tmp_path, source, TableEncoder(), missing=missing)
        assert re.match(r"FILE line \d: has (a|no) column 'town', unlike the first record; list the columns", said)
    listed = {"columns": {"features": ["age", "town"]}}
    assert run(tmp_path, source, TableEncoder(), missing="drop", **listed).counts["empty"] == 12 + ("town" not in first)


def test_a_first_file_without_a_row_says_nothing_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table(tmp_path / "data", [])
    table(tmp_path, people(60)).rename(tmp_path / "data" / "some.csv")
    assert len(learned(run(tmp_path, tmp_path / "data", TableEncoder(), **COLUMNS)).columns) == 2


def test_columns_are_in_the_order_of_the_first_record(tmp_path: Path) -> None:
    records = [{"b": 1, "a": 2, "label": "no"}, *[{"label": ("no", "yes")[i % 2], "a": i, "b": i} for i in range(60)]]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [column.name for column in learned(run(tmp_path, source, TableEncoder())).columns] == ["b", "a"]


def test_words_that_say_that_a_value_is_missing(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [*people(200), ("NA", "paid", "no"), (30, " ? ", "no"), (30, "paid", "NA")]
    result = run(tmp_path, table(tmp_path, rows), TableEncoder(), missing="drop", na_values=["NA", "?"], **COLUMNS)
    assert result.counts["empty"] == 3
    assert result.labels == ["no", "yes"]


def test_a_row_without_a_label_is_left_out_only_where_the_spec_says_so(tmp_path: Path) -> None:
    source = table(tmp_path, [*people(200), (30, "paid", "")])
    said = failure(tmp_path, source, TableEncoder(), **COLUMNS)
    assert said.startswith("FILE line 202: data.missing: fail given, and column 'label' is empty")
    for missing in ("drop", "fill"):
        assert run(tmp_path, source, TableEncoder(), missing=missing, **COLUMNS).counts["empty"] == 1


@pytest.mark.parametrize("record", [{"plan": "\ud800", "label": "no"}, {"\ud800": "paid", "label": "no"}])
def test_half_of_a_surrogate_pair_is_no_word(tmp_path: Path, record: dict[str, str]) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(record) + "\n")
    assert "holds half of a surrogate pair" in failure(tmp_path, source, TableEncoder(), **COLUMNS)


def test_decimals_are_numbers(tmp_path: Path) -> None:
    ages = pa.array([Decimal(i) / 4 for i in range(60)], pa.decimal128(10, 2))
    pq.write_table(pa.table({"age": ages, "label": ["no", "yes"] * 30}), tmp_path / "rows.parquet")
    assert len(learned(run(tmp_path, tmp_path / "rows.parquet", TableEncoder())).columns) == 1


def test_the_label_is_no_feature() -> None:
    with pytest.raises(ValueError, match=r"data.columns.features: 'label' given, which is data.columns.label"):
        Columns(features=["age", "label"])
