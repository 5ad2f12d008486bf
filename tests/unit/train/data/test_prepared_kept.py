"""Prepared data in storage: made once, found by fingerprint, whole or not there."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from heliostat.infra.errors import DataError, IntegrityError, NotFoundError, StorageError
from heliostat.infra.registry import bundle
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train.data import prepared
from heliostat.train.data.config import SPLITS, DataConfig
from heliostat.train.data.formats.source import Source, find_source
from heliostat.train.data.prepare import pipeline
from heliostat.train.data.prepared import find_prepared, fingerprint_of, open_prepared
from heliostat.train.data.prepared import prepare as prepare_data
from tests.unit.train.prepared import Words, many, reviews


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
            pipeline._write(pa.table({"input_ids": [[1, 2], [3]], "length": [2, 1]}), folder / f"{name}.arrow")
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
    monkeypatch.setattr(pipeline, "build", builds)
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
    monkeypatch.setattr(pipeline, "build", Builds())
    kept = prepare_data(data, Words(), storage)
    before = open_store(storage).list()
    monkeypatch.setattr(pipeline, "build", Builds(DataError("no")))
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
        monkeypatch.setattr(pipeline, "build", inner)
        prepare_data(data, Words(), storage)
        return inner(*args)

    monkeypatch.setattr(pipeline, "build", outrun)
    assert prepare_data(data, Words(), storage).counts == {"train": 2}
    assert inner.calls == 2


def test_storage_that_refuses_is_not_hidden(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(pipeline, "build", Builds())
    monkeypatch.setattr(bundle, "publish_directory", full)
    with pytest.raises(StorageError, match="disk full"):
        prepare_data(DataConfig(source=str(reviews(tmp_path, many(5)))), Words(), storage)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "manifest"])
def test_data_whose_file_is_damaged_are_named_and_prepared_anew(
    tmp_path: Path,
    storage: StorageConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    builds = Builds()
    monkeypatch.setattr(pipeline, "build", builds)
    data = DataConfig(source=str(reviews(tmp_path, many(5))))
    made = prepare_data(data, Words(), storage)
    file = made.directory / ("manifest.json" if damage == "manifest" else "train.arrow")
    content = file.read_bytes()
    damaged = {"cut": content[:2], "changed": b"x" + content[1:], "gone": b"", "manifest": b"{"}[damage]
    file.unlink()
    if damage != "gone":
        file.write_bytes(damaged)
    assert find_prepared(data, Words(), storage) is None
    assert f"{file}: " in caplog.text
    assert "; the data are prepared anew" in caplog.text
    assert not prepare_data(data, Words(), storage).reused
    assert builds.calls == 2
    assert prepare_data(data, Words(), storage).reused
    assert made.split("train")["length"].to_pylist() == [2, 1]


def test_a_damaged_copy_of_remote_data_is_downloaded_anew(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = Builds()
    monkeypatch.setattr(pipeline, "build", builds)
    monkeypatch.setattr(prepared, "is_s3", lambda _: True)
    monkeypatch.setattr(prepared, "cache_folder", lambda: tmp_path / "cache")
    data = DataConfig(source=str(reviews(tmp_path, many(5))))
    made = prepare_data(data, Words(), storage)
    assert made.directory.is_relative_to(tmp_path / "cache")
    (made.directory / "test.arrow").write_bytes(b"x")
    assert prepare_data(data, Words(), storage).reused
    assert made.split("test")["length"].to_pylist() == [2, 1]
    assert builds.calls == 1


def test_a_worker_opens_by_fingerprint_and_hears_of_damage(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "build", Builds())
    made = prepare_data(DataConfig(source=str(reviews(tmp_path, many(5)))), Words(), storage)
    assert open_prepared(storage, made.fingerprint) == made
    with pytest.raises(NotFoundError):
        open_prepared(storage, "0" * 16)
    Path(made.url, "manifest.json").write_text("{")
    with pytest.raises(IntegrityError):
        open_prepared(storage, made.fingerprint)
