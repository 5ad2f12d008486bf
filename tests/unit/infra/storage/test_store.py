from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, NotFoundError, StorageError
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.local import LocalStore, write_atomically
from heliostat.infra.storage.store import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def test_what_is_written_is_read_and_listed(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("runs/1/b", b"two")
    store.write_bytes("runs/1/a/c", b"")
    store.write_bytes("runs/12/x", b"other run")
    assert store.read_bytes("runs/1/b") == b"two"
    assert store.list("runs/1") == [Entry("runs/1/a/c", 0), Entry("runs/1/b", 3)]
    assert [entry.key for entry in store.list()] == ["runs/1/a/c", "runs/1/b", "runs/12/x"]
    assert store.list("nothing") == []
    assert store.exists("runs/1/b")
    assert not store.exists("runs/1")


def test_the_version_of_an_entry_changes_with_its_bytes(store: LocalStore) -> None:
    store.write_bytes("a", b"1")
    os.utime(Path(store.url) / "a", ns=(1, 1))
    before = store.list()[0].version
    store.write_bytes("a", b"2")
    assert store.list()[0].version != before


def test_files_go_up_and_come_down(store: LocalStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"x" * 3_000_000)
    store.upload(source, "models/weights")
    store.download("models/weights", target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_ino != (Path(store.url) / "models/weights").stat().st_ino


def test_delete_takes_a_folder_or_a_key_and_nothing_beside_it(store: LocalStore) -> None:
    for key in ("runs/1/a", "runs/1/b/c", "runs/10", "runs/2"):
        store.write_bytes(key, b"")
    store.delete("runs/1")
    store.delete("runs/2")
    store.delete("runs/1")
    assert [entry.key for entry in store.list()] == ["runs/10"]


def test_a_missing_key_is_not_found(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("folder/key", b"")
    for key in ("none", "folder", "folder/key/below"):
        with pytest.raises(NotFoundError, match="cannot read: no such file"):
            store.read_bytes(key)
    with pytest.raises(NotFoundError):
        store.download("none", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_if_absent_keeps_what_is_there(store: LocalStore) -> None:
    store.write_bytes("key", b"first", if_absent=True)
    with pytest.raises(StorageError, match=r"key: cannot write: it exists already"):
        store.write_bytes("key", b"second", if_absent=True)
    assert store.read_bytes("key") == b"first"


def test_of_many_writers_with_if_absent_one_wins(store: LocalStore) -> None:
    def write(number: int) -> bool:
        try:
            store.write_bytes("key", str(number).encode(), if_absent=True)
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(40)))
    assert won.count(True) == 1
    assert store.read_bytes("key") == str(won.index(True)).encode()


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path, if_absent: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")

    def write(writer: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, write, if_absent=if_absent)
    assert file.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_keys_that_come_and_go_are_there_or_not(store: LocalStore) -> None:
    def come_and_go() -> None:
        for _ in range(300):
            store.write_bytes("runs/a/one", b"1")
            store.delete("runs/a")

    def read() -> None:
        while not writer.done():
            assert {entry.key for entry in store.list("runs")} <= {"runs/a/one"}
            with suppress(NotFoundError):
                assert store.read_bytes("runs/a/one") == b"1"

    with ThreadPoolExecutor(3) as pool:
        writer = pool.submit(come_and_go)
        for reader in [pool.submit(read) for _ in range(2)]:
            reader.result()
        writer.result()


def test_half_written_files_are_not_listed(store: LocalStore) -> None:
    store.write_bytes("whole", b"")
    seen: list[list[Entry]] = []
    write_atomically(Path(store.url) / "half", lambda _: seen.append(store.list()))
    assert seen == [[Entry("whole", 0)]]


def test_an_impossible_write_is_one_line_with_path_and_cause(store: LocalStore, tmp_path: Path) -> None:
    store.write_bytes("file", b"")
    with pytest.raises(StorageError, match=r"cannot write 'file/below': ") as caught:
        store.write_bytes("file/below", b"")
    assert not isinstance(caught.value, NotFoundError)
    with pytest.raises(StorageError, match=f"{tmp_path}/absent: cannot write 'key': No such file"):
        store.upload(tmp_path / "absent", "key")


@pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/passwd", "a//b", "a/", ".", "", "a\\b", "a\0b"])
def test_a_key_outside_of_the_store_is_refused(store: LocalStore, key: str) -> None:
    for call in (store.read_bytes, store.exists, store.delete, lambda key: store.write_bytes(key, b"")):
        with pytest.raises(StorageError, match="not a storage key"):
            call(key)


def test_the_place_comes_from_the_environment_and_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HELIOSTAT_STORAGE", raising=False)
    assert StorageConfig().url == str(tmp_path / "heliostat-data")
    monkeypatch.setenv("HELIOSTAT_STORAGE", "s3://bucket/team/")
    assert StorageConfig().url == "s3://bucket/team"
    assert StorageConfig(url="~/data").url == str(Path("~/data").expanduser())


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"url": "gs://bucket"}, "url: 'gs://bucket' given; s3://bucket/prefix or a local path is allowed"),
        ({"url": "s3://"}, "url: 's3://' given; a bucket is needed"),
        ({"url": "s3://Big_Bucket/x"}, "url: 's3://Big_Bucket/x' given; a bucket is needed"),
        ({"url": " "}, "url: ' ' given; s3://bucket/prefix or a local path is allowed"),
        ({"endpoint_url": "localhost:8333"}, "endpoint_url: 'localhost:8333' given; http://host:port"),
    ],
)
def test_a_wrong_place_is_one_line(values: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(StorageConfig, values)
    assert str(caught.value).startswith(line)


def test_open_store_picks_the_kind(tmp_path: Path) -> None:
    local = open_store(StorageConfig(url=str(tmp_path)))
    local.write_bytes("a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert local.url == str(tmp_path)
    bucket = open_store("s3://bucket/some/prefix/", endpoint_url="http://127.0.0.1:1")
    assert bucket.url == "s3://bucket/some/prefix"
    assert open_store("s3://bucket").url == "s3://bucket"
    with pytest.raises(ConfigError, match="storage: url: 'ftp://x' given"):
        open_store("ftp://x")


def test_a_store_travels_to_another_process(store: LocalStore) -> None:
    store.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_a_spec_is_read_without_heavy_imports() -> None:
    heavy = ["boto3", "botocore", "mlflow", "ray", "torch", "transformers", "fastapi"]
    code = f"import sys, heliostat.spec; sys.exit(', '.join(set({heavy}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_storage_that_is_no_folder_is_an_error_and_one_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert LocalStore(str(tmp_path / "storage")).list("keys") == []
    (tmp_path / "storage").write_text("no folder")
    with pytest.raises(StorageError, match="cannot list 'keys': Not a directory"):
        LocalStore(str(tmp_path / "storage")).list("keys")
