from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.cluster.doctor.nodes import storage as module
from heliostat.cluster.doctor.nodes.storage import check_storage, verdict
from heliostat.cluster.doctor.nodes.storing import DATA, Place, Stored, try_storage
from heliostat.infra.errors import StorageError
from heliostat.infra.storage.config import StorageConfig


def place(url: str, endpoint_url: str | None = None) -> Place:
    return {"url": url, "endpoint_url": endpoint_url, "marker": "doctor/1/marker", "own": "doctor/1/0"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")


def test_a_folder_that_all_share(tmp_path: Path) -> None:
    (tmp_path / "doctor" / "1").mkdir(parents=True)
    (tmp_path / "doctor" / "1" / "marker").write_bytes(DATA)
    assert try_storage(place(str(tmp_path)))["operation"] == ""
    assert [file.name for file in (tmp_path / "doctor" / "1").iterdir()] == ["marker"]


def test_a_folder_of_the_node_s_own_is_not_written(tmp_path: Path) -> None:
    answer = try_storage(place(str(tmp_path / "other")))
    assert answer["operation"] == "read what the command wrote"
    assert list(tmp_path.iterdir()) == []
    status, found, advice = verdict(StorageConfig(url=str(tmp_path / "other")), answer)
    assert (status, "all nodes mount" in advice) == ("fail", True)
    assert "cannot read what the command wrote: FileNotFoundError" in found


def test_other_bytes_than_were_written(tmp_path: Path) -> None:
    (tmp_path / "doctor" / "1").mkdir(parents=True)
    (tmp_path / "doctor" / "1" / "marker").write_bytes(b"x")
    assert "other bytes" in try_storage(place(str(tmp_path)))["message"]


@pytest.mark.usefixtures("keys")
def test_a_server_whose_name_does_not_resolve_there() -> None:
    answer = try_storage(place("s3://bucket/prefix", "http://nowhere.invalid:9000"))
    assert (answer["operation"], answer["host"]) == ("connect", "nowhere.invalid")
    status, found, _ = verdict(StorageConfig(url="s3://bucket/prefix"), answer)
    assert (status, "nowhere.invalid: the name does not resolve" in found) == ("fail", True)


@pytest.mark.usefixtures("keys")
def test_a_server_that_does_not_answer() -> None:
    answer = try_storage(place("s3://bucket/prefix", "http://127.0.0.1:1"))
    assert (answer["operation"], answer["addresses"]) == ("read what the command wrote", ["127.0.0.1"])
    assert "127.0.0.1:1" in answer["message"]


def test_what_s3_refuses_is_explained() -> None:
    storage = StorageConfig(url="s3://bucket/prefix")
    answer: Stored = {"host": "s3", "addresses": ["1"], "operation": "write", "code": "AccessDenied", "message": "no"}
    status, found, _ = verdict(storage, answer)
    assert (status, found.startswith("s3://bucket/prefix: cannot write: access denied")) == ("fail", True)
    assert verdict(storage, {**answer, "operation": ""})[:2] == (
        "pass",
        "s3://bucket/prefix at s3 (1) takes, returns and deletes an object",
    )


def test_storage_that_this_command_cannot_write_is_not_tried_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def write_bytes(self, key: str, data: bytes) -> None:
            raise StorageError("s3://bucket: 403")

    monkeypatch.setattr(module, "open_store", lambda storage, deadline_seconds: Refusing())
    [check] = check_storage(StorageConfig(url="s3://bucket"), {"a": "is not asked"})
    assert (check.status, check.found) == ("fail", "this command: s3://bucket: 403")
