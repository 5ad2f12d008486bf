"""Finding data and base models: each kind of source, and the line that is said where one is not to be had."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from heliostat.cluster.folders import fill
from heliostat.infra.errors import HeliostatError, ModelError, StorageError
from heliostat.infra.registry import registry
from heliostat.infra.registry.bundle import publish_directory
from heliostat.infra.registry.published import PublishedModel, write_description
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.train.data.sources import resolve as sources
from heliostat.train.data.sources.resolve import resolve
from tests.unit.train.refusals import failure


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    monkeypatch.setenv("HELIOSTAT_CACHE", str(tmp_path / "cache"))
    return StorageConfig(url=str(tmp_path / "storage"))


def test_a_path_is_itself(tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviews.csv").write_text("text\n")
    monkeypatch.chdir(tmp_path)
    assert resolve("reviews.csv", storage, "data.source") == tmp_path / "reviews.csv"


def test_a_missing_path_names_key_value_and_what_is_allowed(storage: StorageConfig) -> None:
    forms = "a path, dataset:NAME, pkg:package/folder, pypi:NAME==VERSION/folder, npm:NAME@VERSION/folder, hf:org/name"
    forms += ", s3://bucket/prefix"
    for source in ("no/such.csv", "http://x/y.csv", ""):
        assert failure(source, storage) == f"no such file or folder; allowed are {forms}"
    assert failure("gone", storage, "model.source").endswith("s3://bucket/prefix, models:/name@alias")


def test_a_package_is_found_and_never_imported(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "libs" / "reviews_for_test"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "all.csv").write_text("text\n")
    (tmp_path / "libs" / "lonely_for_test.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "libs"))
    found = resolve("pkg:reviews_for_test/data/all.csv", storage, "data.source")
    assert found == package / "data" / "all.csv"
    assert "reviews_for_test" not in sys.modules
    assert failure("pkg:reviews_for_test/data/x.csv", storage) == "there is no 'data/x.csv' in it; data holds all.csv"
    assert "there is no '../libs'" in failure("pkg:reviews_for_test/../libs", storage)
    assert "single module" in failure("pkg:lonely_for_test/x", storage)


def test_a_package_that_is_not_installed_comes_with_the_command(storage: StorageConfig) -> None:
    for key in ("data.source", "model.source"):
        message = failure("pkg:no_such_package_here/model", storage, key)
        assert message.endswith("run: pip install --no-deps no_such_package_here")
    assert "write pkg:package/folder" in failure("pkg:a.b/model", storage)


@pytest.mark.parametrize("end", ["#", "#sha256=", f"#sha256={'0' * 63}", f"#md5={'0' * 32}", f"#sha256={'0' * 64}/a"])
@pytest.mark.parametrize("release", ["pypi:x==1/a", "npm:x@1.0.0/a"])
def test_a_checksum_of_a_release_that_is_none_is_told(release: str, end: str, storage: StorageConfig) -> None:
    for key in ("data.source", "model.source"):
        message = failure(release + end, storage, key)
        assert message == "write #sha256= and the 64 hex digits of the archive's SHA-256 at the end"


def test_the_hub_gives_data_sets_to_data_and_models_to_models(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def snapshot(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(tmp_path / "snapshot")

    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve("hf:org/name@v2/data", storage, "data.source") == tmp_path / "snapshot" / "data"
    assert resolve("hf:org/name", storage, "model.source") == tmp_path / "snapshot"
    (name, data), (_, model) = calls
    assert (name, data["repo_type"], data["revision"]) == ("org/name", "dataset", "v2")
    assert data["allow_patterns"] == ["data", "data/*"]
    assert (model["repo_type"], model["revision"], model["allow_patterns"]) == ("model", None, None)


def test_a_hub_that_refuses_is_told_in_one_line(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, **options: Any) -> str:
        raise RuntimeError("401 Client Error\n\nRepository Not Found")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refused)
    assert failure("hf:org/name", storage) == "the model hub does not give it: 401 Client Error"
    assert failure("hf:name", storage) == "write hf:org/name, hf:org/name@revision or hf:org/name/path"


def test_a_published_model_is_fetched_once_and_only_for_models(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "model").mkdir(parents=True)
    (bundle / "model" / "config.json").write_text("{}")
    now = datetime.now(timezone.utc)
    write_description(
        bundle,
        PublishedModel(
            name="chat", task="causal-lm", max_length=8, base_model="b", run_id="run", data_fingerprint="0",
            metrics={}, heliostat_version="0", created=now,
        ),
    )  # fmt: skip
    digest = publish_directory(open_store(storage), "models/chat/1", bundle).digest
    url = f"{storage.url}/models/chat/1"
    version = ModelVersion("chat", 1, url, digest, "run", now, ("production",), {})
    monkeypatch.setattr(registry, "resolve", lambda storage, reference: version)
    found = resolve("models:/chat@production", storage, "model.source")
    assert (found / "config.json").read_text() == "{}"
    open_store(storage).delete("models")
    assert resolve("models:/chat@production", storage, "model.source") == found
    assert failure("models:/chat@production", storage) == "a published model is no data"


def test_an_unknown_published_model_names_the_key(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(storage: StorageConfig, reference: str) -> ModelVersion:
        raise ModelError(f"{reference}: no such model")

    monkeypatch.setattr(registry, "resolve", unknown)
    assert failure("models:/chat@x", storage, "model.source") == "models:/chat@x: no such model"


def as_bucket(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes a folder answer as s3://bucket."""
    monkeypatch.setattr(sources, "open_store", lambda url, endpoint: open_store(str(folder)))


def test_objects_are_fetched_below_their_prefix(
    tmp_path: Path, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "bucket"
    for name in ("top.csv", "reviews/a.csv", "reviews/b/c.csv", "reviews-old/d.csv"):
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_text(name)
    as_bucket(monkeypatch, bucket)
    folder = resolve("s3://bucket/reviews/", storage, "data.source")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.csv")) == ["a.csv", "b/c.csv"]
    for key in ("top.csv", "reviews/a.csv"):
        assert resolve(f"s3://bucket/{key}", storage, "data.source").read_text() == key
    assert failure("s3://bucket/nothing", storage) == "no objects there; a key or a prefix of keys is needed"
    (bucket / "reviews" / "a.csv").write_text("a longer text")
    assert (resolve("s3://bucket/reviews", storage, "data.source") / "a.csv").read_text() == "a longer text"


def test_a_wrong_bucket_names_the_key(storage: StorageConfig) -> None:
    assert "a bucket is needed" in failure("s3://Bad_Bucket/x", storage, "model.source")


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise HeliostatError("no second file")

    with pytest.raises(HeliostatError):
        fill(tmp_path / "cache" / "x", half)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".x.lock"]
    made = fill(tmp_path / "cache" / "x", lambda folder: (folder / "one").write_text("1"))
    assert fill(made, half) == made
    assert [path.name for path in made.iterdir()] == ["one"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match=r"cache/x: cannot be made: .*; HELIOSTAT_CACHE may name another place"):
        fill(tmp_path / "cache" / "x", lambda folder: None)
