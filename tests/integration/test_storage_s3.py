"""Storage, bundles and tracking against a real S3 server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heliostat.infra.errors import IntegrityError, NotFoundError, ResourceError, StorageError
from heliostat.infra.registry.bundle import fetch_directory, publish_directory, read_manifest
from heliostat.infra.storage.base import Entry, Store
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.lease import leased
from heliostat.infra.storage.store import open_store
from heliostat.infra.tracked_run import start_run


@pytest.fixture
def store(s3_url: str) -> Store:
    return open_store(s3_url)


def test_objects_are_written_read_listed_and_deleted(store: Store) -> None:
    store.write_bytes("runs/1/a", b"one")
    store.write_bytes("runs/1/b/c", b"")
    store.write_bytes("runs/10/a", b"ten")
    assert store.read_bytes("runs/1/a") == b"one"
    assert store.list("runs/1") == [Entry("runs/1/a", 3), Entry("runs/1/b/c", 0)]
    assert store.exists("runs/1/a")
    assert not store.exists("runs/1")
    version = store.list("runs/1")[0].version
    store.write_bytes("runs/1/a", b"two")
    assert store.list("runs/1")[0].version != version
    store.delete("runs/1")
    store.delete("runs/1")
    assert store.list() == [Entry("runs/10/a", 3)]
    with pytest.raises(NotFoundError, match=f"^{store.url}/runs/1/a: cannot read: no such object$"):
        store.read_bytes("runs/1/a")


def test_a_file_of_several_parts_comes_back(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    (tmp_path / "weights").write_bytes(data)
    store.upload(tmp_path / "weights", "weights")
    assert store.list()[0].version.strip('"').endswith("-3"), "an ETag of three parts"
    store.download("weights", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["back", "weights"]


def test_more_keys_than_one_request_takes(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.write_bytes(f"many/{number:04}", b""), range(1005)))
    assert [entry.key for entry in store.list("many")] == [f"many/{number:04}" for number in range(1005)]
    store.delete("many")
    assert store.list() == []


def test_of_many_writers_with_if_absent_one_wins(store: Store) -> None:
    refusals: list[str] = []

    def write(number: int) -> bool:
        try:
            store.write_bytes("pointer", str(number).encode(), if_absent=True)
        except StorageError as error:
            refusals.append(str(error).rpartition(": ")[2])
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(24)))
    assert won.count(True) == 1
    assert set(refusals) <= {
        "it exists already and is never overwritten",
        "another process is writing it now",
    }
    assert store.read_bytes("pointer") == str(won.index(True)).encode()


def test_a_bundle_comes_back_and_one_altered_byte_is_found(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    (source / "model/weights").write_bytes(b"w" * 100_000)
    (source / "spec.yaml").write_text("name: x")
    published = publish_directory(store, "models/x/1", source)
    assert read_manifest(open_store(f"{store.url}/models/x/1"), "") == published
    fetch_directory(store, "models/x/1", tmp_path / "there", digest=published.digest)
    assert (tmp_path / "there/model/weights").read_bytes() == b"w" * 100_000
    store.write_bytes("models/x/1/model/weights", b"w" * 99_999 + b"v")
    with pytest.raises(IntegrityError, match="models/x/1/model/weights: has SHA-256"):
        fetch_directory(store, "models/x/1", tmp_path / "again", digest=published.digest)
    assert sorted(os.listdir(tmp_path)) == ["source", "there"]


def test_a_bucket_that_is_not_there(s3_url: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/x")
    (tmp_path / "file").write_text("x")
    for call in (
        lambda: store.exists("key"),
        lambda: store.list(),
        lambda: store.read_bytes("key"),
        lambda: store.write_bytes("key", b""),
        lambda: store.upload(tmp_path / "file", "key"),
        lambda: store.download("key", tmp_path / "target"),
    ):
        with pytest.raises(StorageError, match=r"^s3://no-such-bucket/x.*: cannot .*: no such bucket: make it"):
            call()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        ("AWS_ACCESS_KEY_ID", "the server does not know the access key: check AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_keys(s3_url: str, monkeypatch: pytest.MonkeyPatch, variable: str, complaint: str) -> None:
    monkeypatch.setenv(variable, "wrong")
    with pytest.raises(StorageError, match=f"^{s3_url}/key: cannot read: {complaint}") as caught:
        open_store(s3_url).read_bytes("key")
    assert "\n" not in str(caught.value)


def test_the_endpoint_may_be_in_the_spec(
    s3_url: str, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    address = s3_server["AWS_ENDPOINT_URL_S3"].replace("127.0.0.1", "localhost")
    store = open_store(StorageConfig(url=s3_url, endpoint_url=address))
    store.write_bytes("key", b"value")
    assert store.read_bytes("key") == b"value"


def test_a_lease_in_a_bucket_is_held_once_and_given_up(store: Store) -> None:
    for number in (1, 2):
        with leased(store, "runs/a/driver", "run a", lambda: None):
            assert [entry.key for entry in store.list("runs/a/driver")] == [f"runs/a/driver/{number:06d}.json"]
            with pytest.raises(ResourceError, match="run a is in use by process"):
                leased(store, "runs/a/driver", "run a", lambda: None).__enter__()


def test_artifacts_of_a_run_are_in_the_bucket(
    s3_url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with start_run(StorageConfig(url=s3_url), "e", "n", {}, {}) as run:
        run.text("fine", "report.txt")
    assert store.read_bytes(f"mlflow/{run.id}/artifacts/report.txt") == b"fine"
    assert (tmp_path / "heliostat-data/mlflow.db").exists()
