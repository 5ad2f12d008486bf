"""Preparing data, but for Ray: what stays, where it goes, what is counted, and which data will not do."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pytest

from heliostat.infra.errors import DataError, IntegrityError, NotFoundError, StorageError
from heliostat.infra.storage import StorageConfig, open_store
from heliostat.train import data as data_module
from heliostat.train import decide, prepare, screen
from heliostat.train.config import Columns, DataConfig, Split
from heliostat.train.data import SPLITS, Prepared, find_prepared, fingerprint_of, open_prepared
from heliostat.train.data import prepare as prepare_data
from heliostat.train.encode import encode_block
from heliostat.train.records import Source, find_source
from heliostat.train.values import label_text


@dataclass(frozen=True)
class Words:
    """One token per word: the word's length. With `answers`, the loss is on the answer only."""

    labelled: bool = True
    answers: bool = False
    name: str = "words"

    def columns(self, data: DataConfig) -> list[str]:
        asked = [data.columns.prompt, data.columns.context, data.columns.answer] if self.answers else []
        chat = [data.columns.messages] if data.columns.messages else []
        found = [column for column in (asked or chat or [data.columns.text]) if column]
        return [*found, data.columns.label] if self.labelled else found

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        if data.columns.messages:
            return "\n".join(turn["content"] for turn in record[data.columns.messages])
        return " ".join(record[column] or "" for column in self.columns(data) if column in record)

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        rows = [dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)]
        if any("unspeakable" in self.text(row, data) for row in rows):
            raise DataError("data.columns: a word that cannot be encoded")
        ids = [[len(word) for word in self.text(row, data).split()] for row in rows]
        if not self.answers:
            return {"input_ids": ids}
        asked = [len(row[str(data.columns.prompt)].split()) for row in rows]
        return {"input_ids": ids, "labels": [[-100] * n + row[n:] for n, row in zip(asked, ids, strict=True)]}

    def fingerprint(self) -> str:
        return self.name


@dataclass
class Result:
    tables: dict[str, pa.Table]
    counts: dict[str, int]
    labels: list[str]

    def texts(self, split: str) -> set[str]:
        return set(self.tables[split]["record_id"].to_pylist())


def run(folder: Path, path: Path, encoder: Words, **options: Any) -> Result:
    """The steps of `prepare.build` in this process, block by block, without Ray."""
    data = DataConfig(source=str(path), **options)
    source = find_source(path, data.format)
    blocks = [block for i in range(len(source.files)) for block in screen.screen(source, i, data, encoder)]
    plan = decide.decide(pa.concat_tables(blocks[::-1]).select(screen.KEYS), source, data, encoder.labelled)
    encoded = [encode_block(block, data, encoder, plan.cutoff) for block in blocks[::-1]]
    out = Path(mkdtemp(prefix="out-", dir=folder))
    summary = prepare._written(decide.finish(pa.concat_tables(encoded), plan, source, data), plan, out)
    prepared = Prepared("f", "u", out, (), {})
    return Result({name: prepared.split(name) for name in SPLITS}, summary["counts"], summary["labels"])


def reviews(folder: Path, rows: Sequence[Sequence[object]], name: str = "reviews.csv") -> Path:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "stars"), *rows])
    return folder / name


def many(count: int, start: int = 0) -> list[tuple[str, str, int]]:
    return [(f"review number {i} of a film", "good" if i % 2 else "bad", i % 10) for i in range(start, start + count)]


def failure(folder: Path, path: Path, encoder: Words | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(folder, path, encoder or Words(), **options)
    assert "\n" not in str(caught.value)
    assert list(folder.glob("out-*/*")) == []
    return str(caught.value).replace(str(path), "FILE")


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
    result = run(tmp_path, reviews(tmp_path, rows), Words(), where="stars > 0", max_length=5)
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
            ("input_ids", pa.list_(pa.int32())),
            ("label", pa.string()),
            ("length", pa.int32()),
            ("targets", pa.int32()),
            ("record_id", pa.string()),
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


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert screen.digest_of("a film").hex() == "7db56f9057a074d669e7200d5a3192c5"
    assert screen.normalised("Cafe\u0301  noir\n") == "Café noir"


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
    assert [label_text(value, "label") for value in (1, 1.0, "1", True, 0.5, None, float("nan"), " ")] == [
        *("1", "1", "1", "true", "0.5"),
        *(None, None, None),
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {i}", "label": i % 3}) + "\n" for i in range(200)))
    assert run(tmp_path, path, Words()).labels == ["0", "1", "2"]


def test_loss_on_the_answer_only_and_answers_that_are_cut_away(tmp_path: Path) -> None:
    rows = [{"q": "what is " + "so " * (i % 8) + f"{i}", "a": f"answer {i}", "more": None} for i in range(200)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*rows, {"q": "unanswered", "a": None}, {"q": "unanswered", "a": ""}]))
    columns = Columns(prompt="q", context="more", answer="a")
    result = run(tmp_path, path, Words(labelled=False, answers=True), columns=columns, max_length=9)
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
    result = run(tmp_path, path, encoder, columns=columns)
    assert result.counts["empty"] == 2
    assert result.tables["test"]["text"][0].as_py().endswith("\nho")
    shutil.rmtree(next(tmp_path.glob("out-*")))
    for turn in ("hi", {"role": "user"}, {"role": "user", "content": 3}):
        path.write_text(json.dumps({"chat": [turn]}) + "\n")
        message = failure(tmp_path, path, encoder, columns=columns)
        assert message.startswith("FILE line 1: data.columns.messages: column 'chat' holds ")
        assert message.endswith("a list of {role, content} texts is needed")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (many(10), {"where": "stars > 99"}, "data.where: 'stars > 99' keeps none of the 10 records of FILE"),
        (
            [("", "a", 1), ("x", "a", 1)],
            {"where": "stars == 1 and text == ''"},
            "data.source: FILE has no usable record (2 read, 1 filtered out, 1 without text or label)",
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
        ([*many(9), ("unspeakable", "good", 1)], {}, "data.columns: a word that cannot be encoded"),
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


def source_of(path: Path) -> tuple[Source, DataConfig]:
    return find_source(path, "auto"), DataConfig(source=str(path))


def test_the_fingerprint_follows_bytes_settings_and_encoder_and_not_the_path(tmp_path: Path) -> None:
    source, data = source_of(reviews(tmp_path, many(5)))
    same, elsewhere = source_of(reviews(tmp_path, many(5), "copy.csv"))
    other, _ = source_of(reviews(tmp_path, many(6), "other.csv"))
    base = fingerprint_of(source, data, Words())
    assert fingerprint_of(same, elsewhere, Words()) == base
    assert (
        len(
            {
                base,
                fingerprint_of(other, data, Words()),
                fingerprint_of(source, data.model_copy(update={"where": "stars > 1"}), Words()),
                fingerprint_of(source, data.model_copy(update={"max_length": 99}), Words()),
                fingerprint_of(source, data, Words(name="another tokenizer")),
            }
        )
        == 5
    )


class Builds:
    """Stands in for the Ray Data work: counts its calls and writes small splits."""

    def __init__(self, error: DataError | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, source: Source, data: DataConfig, encoder: Any, folder: Path, progress: Any) -> dict[str, Any]:
        self.calls += 1
        for name in SPLITS:
            prepare._write(pa.table({"input_ids": [[1, 2], [3]], "length": [2, 1]}), folder / f"{name}.arrow")
        if self.error:
            raise self.error
        return {"counts": {"train": 2}, "labels": ["a", "b"], "columns": ["input_ids", "length"]}


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    return StorageConfig(url=str(tmp_path / "storage"))


def test_unchanged_data_is_prepared_once(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = Builds()
    monkeypatch.setattr(prepare, "build", builds)
    data = DataConfig(source=str(reviews(tmp_path, many(5))))
    assert find_prepared(data, Words(), storage) is None
    first = prepare_data(data, Words(), storage)
    again = prepare_data(data, Words(), storage)
    assert builds.calls == 1
    assert not first.reused
    assert again == replace(first, reused=True) == find_prepared(data, Words(), storage)
    assert again.url == f"{storage.url}/data/{first.fingerprint}"
    assert (again.labels, again.counts) == (("a", "b"), {"train": 2})
    assert pickle.loads(pickle.dumps(again)).split("test")["length"].to_pylist() == [2, 1]
    prepare_data(data.model_copy(update={"max_length": 64}), Words(), storage)
    assert builds.calls == 2


def test_a_failure_leaves_nothing_and_what_was_there_stays(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(source=str(reviews(tmp_path, many(5))))
    monkeypatch.setattr(prepare, "build", Builds())
    kept = prepare_data(data, Words(), storage)
    before = open_store(storage).list()
    monkeypatch.setattr(prepare, "build", Builds(DataError("no")))
    with pytest.raises(DataError, match="no"):
        prepare_data(data.model_copy(update={"max_length": 64}), Words(), storage)
    assert open_store(storage).list() == before
    assert open_prepared(storage, kept.fingerprint) == kept


def test_another_process_that_was_faster_is_no_error(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(source=str(reviews(tmp_path, many(5))))
    inner = Builds()

    def outrun(*args: Any) -> dict[str, Any]:
        monkeypatch.setattr(prepare, "build", inner)
        prepare_data(data, Words(), storage)
        return inner(*args)

    monkeypatch.setattr(prepare, "build", outrun)
    assert prepare_data(data, Words(), storage).counts == {"train": 2}
    assert inner.calls == 2


def test_storage_that_refuses_is_not_hidden(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(prepare, "build", Builds())
    monkeypatch.setattr(data_module, "publish_directory", full)
    with pytest.raises(StorageError, match="disk full"):
        prepare_data(DataConfig(source=str(reviews(tmp_path, many(5)))), Words(), storage)


def test_a_worker_opens_by_fingerprint_and_hears_of_damage(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "build", Builds())
    made = prepare_data(DataConfig(source=str(reviews(tmp_path, many(5)))), Words(), storage)
    assert open_prepared(storage, made.fingerprint) == made
    with pytest.raises(NotFoundError):
        open_prepared(storage, "0" * 16)
    Path(made.url, "manifest.json").write_text("{")
    with pytest.raises(IntegrityError):
        open_prepared(storage, made.fingerprint)
