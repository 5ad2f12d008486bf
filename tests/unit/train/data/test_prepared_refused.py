"""Data that will not do: one line that says which key, file and record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from heliostat.train.data.config import Columns, Split
from tests.unit.train.prepared import Words, failure, many, reviews, run


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (many(10), {"where": "stars > 99"}, "data.where: 'stars > 99' keeps none of the 10 records of FILE"),
        (
            [("", "a", 1), ("x", "a", 1)],
            {"where": "stars == 1 and text == ''", "missing": "drop"},
            "data.source: FILE has no usable record (2 read, 1 filtered out, 1 without text or label)",
        ),
        (
            [*many(10), ("", "good", 1)],
            {},
            "FILE line 12: data.missing: fail given, and column 'text' is empty; drop is allowed",
        ),
        (
            [*many(10), ("unknown", "NaN", 1)],
            {},
            "FILE line 12: data.missing: fail given, and column 'label' is empty; drop is allowed",
        ),
        (
            many(40),
            {"label_names": {"good": "fine", "awful": "terrible"}},
            "data.label_names: 'awful' given, which no record has as its label; there are 'bad', 'fine'",
        ),
        ([], {}, "data.source: FILE has no usable record (0 read, 0 filtered out, 0 without text or label)"),
        (
            many(10),
            {"where": "grade > 1"},
            "data.where: column 'grade' is not in FILE; it has text, label, stars",
        ),
        (
            many(10),
            {"columns": Columns(text="body")},
            "data.columns.text: column 'body' is not in FILE; it has text, label, stars",
        ),
        (
            [("a film", "good", "many")],
            {"where": "stars > 1"},
            "FILE line 2: data.where: 'many' cannot be compared with 1; a number is needed",
        ),
        (
            [(text, "good", 1) for text, _, _ in many(100)],
            {},
            "data.columns.label: column 'label': every training record has the label 'good'; "
            "two classes or more are needed",
        ),
        (
            many(3),
            {"split": Split(validation=0, test=0.001)},
            "data.split.test: 0.001 of 3 usable records leaves none for test; add some or set it to 0",
        ),
        (
            many(100),
            {"overflow": "fail", "max_length": 5},
            "data.max_length: FILE line 2 has 6 tokens, 5 are allowed; raise it, or set data.overflow to truncate",
        ),
        ([*many(9), ("unspeakable", "good", 1)], {}, "FILE line 11: data.columns: a word that cannot be encoded"),
    ],
)
def test_data_that_will_not_do_is_refused_in_one_line(
    tmp_path: Path, rows: list[tuple[str, str, object]], options: dict[str, Any], message: str
) -> None:
    split = {"split": Split(validation=0, test=0)} if len(rows) < 20 else {}
    assert failure(tmp_path, reviews(tmp_path, rows), **{**split, **options}) == message


def test_a_label_that_training_never_sees_is_named_with_its_number(tmp_path: Path) -> None:
    rows = many(300)
    probe = run(tmp_path, reviews(tmp_path, rows), Words())
    held_out = probe.tables["test"]["text"].to_pylist()[:3]
    shutil.rmtree(next(tmp_path.glob("out-*")))
    rows = [(text, "odd" if text in held_out else label, stars) for text, label, stars in rows]
    message = failure(tmp_path, reviews(tmp_path, rows))
    key, _, problem = message.partition(": label ")
    assert key == "data.columns.label: column 'label'"
    assert problem.startswith("'odd' is on 3 validation or test records and on no training record")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": 42, "label": "a"}, "data.columns.text: column 'text' holds int (42); text is needed"),
        (
            {"text": ["x"], "label": "a"},
            "data.columns.text: column 'text' holds list (['x']); text is needed",
        ),
        (
            {"text": "x", "label": {"a": 1}},
            "data.columns.label: column 'label' holds dict ({'a': 1}); text or a number is needed",
        ),
        (
            {"text": "half \ud83d", "label": "a"},
            "column 'text' holds half of a surrogate pair at character 6, which is no text",
        ),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert failure(tmp_path, path) == f"FILE line 1: {message}"


def test_the_first_broken_file_in_order_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    reviews(folder, many(50), "a.csv")
    (folder / "b.csv").write_text("text,label,stars\nx\n")
    (folder / "c.csv").write_text("text\n")
    assert failure(tmp_path, folder) == "FILE/b.csv line 2: 1 fields; the header has 3"


def test_a_class_that_a_split_lacks_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*many(300), *[(f"strange film {i}", "odd", 1) for i in range(3)]]
    result = run(tmp_path, reviews(tmp_path, rows), Words())
    absent = [split for split in ("validation", "test") if "odd" not in result.tables[split]["label"].to_pylist()]
    assert absent, "three records are too few for three splits"
    for split in absent:
        assert f"class 'odd' has 3 records and none in {split}; add some, raise data.split.{split}, or" in caplog.text
