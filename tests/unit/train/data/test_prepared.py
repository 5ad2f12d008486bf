"""Preparing data, but for Ray: what stays, where it goes, and what is counted."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from heliostat.train.data.config import SPLITS, Columns, DataConfig, Split
from heliostat.train.data.prepare import scan
from heliostat.train.data.prepare.encode import VALUES, _column
from heliostat.train.data.prepare.windows import IGNORED, windows
from heliostat.train.data.values import label_text
from heliostat.train.encoders.subwords import SubwordEncoder
from tests.unit.train.prepared import Words, failure, many, reviews, run


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        *many(400),
        ("review number 1 of a film", "good", 1),
        ("review  number 1\nof a film ", "good", 1),
        ("review number 2 of a film", "good", 2),
        ("", "good", 1),
        (" \t", "bad", 1),
        ("no label", "", 1),
    ]
    result = run(tmp_path, reviews(tmp_path, rows), Words(), where="stars > 0", max_length=5, missing="drop")
    counts = result.counts
    assert counts["read"] == 406
    assert counts["filtered"] == 40
    assert counts["empty"] == 3
    assert counts["duplicates"] == 3
    assert counts["conflicting"] == 1
    assert counts["train"] + counts["validation"] + counts["test"] == 360
    assert counts["truncated"] == 360
    assert counts["tokens"] == 5 * 360
    assert result.labels == ["bad", "good"]


def test_tables_hold_what_training_needs(tmp_path: Path) -> None:
    result = run(tmp_path, reviews(tmp_path, many(100)), Words(), max_length=5)
    train, test = result.tables["train"], result.tables["test"]
    assert train.schema == pa.schema(
        [
            ("input_ids", pa.large_list(pa.int32())),
            ("label", pa.string()),
            ("length", pa.int32()),
            ("targets", pa.int32()),
            ("record_id", pa.large_string()),
        ]
    )
    row = test.to_pylist()[0]
    assert row["input_ids"] == [len(word) for word in row["text"].split()][:5]
    assert (row["length"], row["targets"]) == (5, 1)
    assert row["record_id"] == hashlib.blake2b(row["text"].encode(), digest_size=16).hexdigest()[:16]
    assert row["label"] == ("good" if int(row["text"].split()[2]) % 2 else "bad")
    assert all(column.num_chunks == 1 for table in result.tables.values() for column in table.columns)


def test_records_stay_in_the_order_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = many(6000)
    reviews(folder, rows[:5000], "a.csv")
    reviews(folder, rows[5000:], "b.csv")
    numbers = [int(text.split()[2]) for text in run(tmp_path, folder, Words()).tables["test"]["text"].to_pylist()]
    assert len(numbers) > 400
    assert numbers == sorted(numbers)


def test_a_text_keeps_its_split_whatever_surrounds_it(tmp_path: Path) -> None:
    first = run(tmp_path, reviews(tmp_path, many(3000)), Words())
    other = run(tmp_path, reviews(tmp_path, [*many(200, 9000), *many(3000)[::-1]]), Words())
    for split in SPLITS:
        assert first.texts(split) < other.texts(split)
    shares = {name: first.counts[name] / 3000 for name in SPLITS}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.02)


@pytest.mark.parametrize(("longest", "stride"), [(8, 6), (8, 7), (8, 1), (4, 3), (5, 2)])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 14, 15, 100])
def test_each_token_is_learned_in_one_window_after_what_precedes_it(length: int, longest: int, stride: int) -> None:
    parts = windows(length, longest, stride)
    labels = list(range(length))
    assert all(part.end - part.start <= longest for part in parts)
    learned = []
    for part in parts:
        made = part.learned(labels)
        assert len(made) == part.end - part.start
        learned += [label for label in made[1:] if label != IGNORED]  # nothing precedes the first token of a row
    assert learned == labels[1:]


@pytest.mark.parametrize("overflow", ["auto", "split"])
def test_long_texts_of_a_language_model_are_learned_whole(tmp_path: Path, overflow: str) -> None:
    texts = [" ".join(f"w{(i * 7 + j) % 50}" for j in range(10 + 40 * (i % 3))) + f" end{i}" for i in range(120)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = {"max_length": 32, "vocabulary": 300}
    whole = run(tmp_path, path, SubwordEncoder(), **{**options, "max_length": 10_000})
    parts = run(tmp_path, path, SubwordEncoder(), **options, overflow=overflow)
    assert (parts.counts["truncated"], parts.counts["in_several_parts"] >= 70) == (0, True)
    assert whole.counts["in_several_parts"] == 0
    for name in SPLITS:
        assert set(parts.tables[name]["record_id"].to_pylist()) == set(whole.tables[name]["record_id"].to_pylist())
        assert sum(parts.tables[name]["targets"].to_pylist()) == sum(whole.tables[name]["targets"].to_pylist()) > 0
        assert max(parts.tables[name]["length"].to_pylist()) == 32
    cut = run(tmp_path, path, SubwordEncoder(), **options, overflow="truncate")
    assert cut.counts["truncated"] == parts.counts["in_several_parts"]
    assert cut.counts["train"] == whole.counts["train"] < parts.counts["train"]


def test_lists_and_texts_may_be_longer_than_32_bits_can_count(tmp_path: Path) -> None:
    for table in run(tmp_path, reviews(tmp_path, many(100)), Words()).tables.values():
        assert pa.types.is_large_list(table.schema.field("input_ids").type)
        assert pa.types.is_large_string(table.schema.field("record_id").type)
    assert all(pa.types.is_large_list(kind) for kind in VALUES.values())
    encoded = _column(np.zeros((3, 4), dtype=np.uint8), VALUES["pixels"], 3)
    assert (encoded.type, encoded.offsets.type) == (VALUES["pixels"], pa.int64())


def test_quotes_that_may_be_meant_otherwise_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"film {i}\t{'ab'[i % 2]}" for i in range(100)]
    stray = [*rows[:10], f'"{rows[10]}', *rows[11:30], 'film 30"\ta', *rows[31:]]
    tabs, commas = tmp_path / "a.tsv", tmp_path / "a.csv"
    tabs.write_text("\n".join(["text\tlabel", *stray]) + "\n")
    assert run(tmp_path, tabs, Words()).counts["read"] == 100
    assert "quot" not in caplog.text
    tabs.write_text("\n".join(["text\tlabel", '"so"\ta', *rows, '"said"\tb']) + "\n")
    assert run(tmp_path, tabs, Words()).counts["read"] == 102
    assert f"{tabs} line 2 (and 1 more): quotes around a field are taken as a part of it; where" in caplog.text
    commas.write_text("\n".join(["text,label", *stray]).replace("\t", ",") + "\n")
    assert run(tmp_path, commas, Words()).counts["read"] == 80
    assert f"{commas} line 12: a quoted field holds line breaks; where quotes are characters, set" in caplog.text
    assert "to none (21 lines)" in caplog.text
    caplog.clear()
    commas.write_text(f"text,label\n{'x' * 70_000},a\n" + "\n".join(rows).replace("\t", ",") + "\n")
    run(tmp_path, commas, Words())
    assert "a field is unusually long; where quotes are characters, set data.quoting to none (70000 char" in caplog.text


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert scan.digest_of("a film").hex() == "7db56f9057a074d669e7200d5a3192c5"
    assert scan.normalised("Cafe\u0301  noir\n") == "Café noir"


def test_another_share_of_validation_leaves_the_test_split_alone(tmp_path: Path) -> None:
    path = reviews(tmp_path, many(300))
    few = run(tmp_path, path, Words(), split=Split(validation=0.1, test=0.2))
    more = run(tmp_path, path, Words(), split=Split(validation=0.3, test=0.2))
    assert few.texts("test") == more.texts("test")
    assert few.texts("validation") < more.texts("validation")


def test_a_limit_draws_from_all_of_sorted_data_and_from_each_split(tmp_path: Path) -> None:
    rows = sorted(many(2000), key=lambda row: row[1])
    path = reviews(tmp_path, rows)
    whole, part = run(tmp_path, path, Words()), run(tmp_path, path, Words(), limit=500)
    less = run(tmp_path, path, Words(), limit=100)
    assert sum(part.counts[name] for name in SPLITS) == 500
    assert part.counts["beyond_limit"] == 1500
    assert sum(less.counts[name] for name in SPLITS) == 100
    for split in SPLITS:
        assert less.texts(split) < part.texts(split) < whole.texts(split)
    labels = part.tables["train"]["label"].to_pylist()
    assert 0.4 < labels.count("good") / len(labels) < 0.6


def test_a_limit_counts_each_text_once(tmp_path: Path) -> None:
    result = run(tmp_path, reviews(tmp_path, many(100) * 3), Words(), limit=60)
    assert sum(result.counts[name] for name in SPLITS) == 60
    assert result.counts["duplicates"] == 200


def test_labels_may_be_numbers_or_true_and_false(tmp_path: Path) -> None:
    data = DataConfig(source="x", na_values=["NA"])
    values = (1, 1.0, "1", True, 0.5, None, float("nan"), " ", " NA")
    assert [label_text(value, "label", data) for value in values] == ["1", "1", "1", "true", "0.5", *[None] * 4]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {i}", "label": i % 3}) + "\n" for i in range(200)))
    assert run(tmp_path, path, Words()).labels == ["0", "1", "2"]


def test_loss_on_the_answer_only_and_answers_that_are_cut_away(tmp_path: Path) -> None:
    rows = [{"q": "what is " + "so " * (i % 8) + f"{i}", "a": f"answer {i}", "more": None} for i in range(200)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*rows, {"q": "unanswered", "a": None}, {"q": "unanswered", "a": ""}]))
    columns = Columns(prompt="q", context="more", answer="a")
    result = run(tmp_path, path, Words(labelled=False, answers=True), columns=columns, max_length=9, missing="drop")
    assert result.labels == []
    assert result.counts["empty"] == 2
    assert result.counts["without_target"] == 50
    assert result.counts["truncated"] == 75
    for row in result.tables["train"].to_pylist():
        assert len(row["labels"]) == len(row["input_ids"]) == row["length"] <= 9
        assert row["targets"] == sum(label != -100 for label in row["labels"]) > 0
    assert "label" not in result.tables["train"].schema.names


def test_an_answer_column_called_label_is_no_class(tmp_path: Path) -> None:
    path = reviews(tmp_path, [(f"question {i}", f"answer {i}", 1) for i in range(100)])
    columns = Columns(prompt="text", answer="label")
    result = run(tmp_path, path, Words(labelled=False, answers=True), columns=columns)
    assert result.labels == []
    assert sum(result.counts[name] for name in SPLITS) == 100


def test_chats_are_lists_of_turns(tmp_path: Path) -> None:
    chats = [
        [{"role": "user", "content": f"hi {i}", "id": i}, {"role": "assistant", "content": "ho"}] for i in range(99)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"chat": chat}) + "\n" for chat in [*chats, [], None]))
    encoder, columns = Words(labelled=False), Columns(messages="chat")
    result = run(tmp_path, path, encoder, columns=columns, missing="drop")
    assert result.counts["empty"] == 2
    assert result.tables["test"]["text"][0].as_py().endswith("\nho")
    shutil.rmtree(next(tmp_path.glob("out-*")))
    for turn in ("hi", {"role": "user"}, {"role": "user", "content": 3}):
        path.write_text(json.dumps({"chat": [turn]}) + "\n")
        message = failure(tmp_path, path, encoder, columns=columns)
        assert message.startswith("FILE line 1: data.columns.messages: column 'chat' holds ")
        assert message.endswith("a list of {role, content} texts is needed")
