"""S3Store against a small server that fails on command; the real server is in the integration tests."""

from __future__ import annotations

import os
import pickle
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from heliostat.infra.errors import NotFoundError, StorageError
from heliostat.infra.storage.base import Entry
from heliostat.infra.storage.deadline import Deadline, DeadlineExceededError, bounded, current
from heliostat.infra.storage.s3 import Limits, S3Store
from tests.unit.infra.storage.faulty_server import QUICK, FaultyServer


@pytest.fixture
def store(server: FaultyServer) -> S3Store:
    return S3Store("bucket", "prefix", server.url, QUICK)


def with_limits(server: FaultyServer, **limits: Any) -> S3Store:
    return S3Store("bucket", "prefix", server.url, Limits(**{**QUICK.__dict__, **limits}))


@pytest.mark.parametrize("fault", ["error 500 InternalError", "error 503 SlowDown", "reset", "silent"])
def test_a_fault_that_passes_is_not_noticed(server: FaultyServer, store: S3Store, fault: str) -> None:
    server.faults = [fault]
    store.write_bytes("key", b"value")
    server.faults = [fault]
    assert store.read_bytes("key") == b"value"
    assert len(server.requests) == 4


def test_a_fault_that_stays_ends_after_the_attempts(server: FaultyServer, store: S3Store) -> None:
    server.faults = ["error 500 InternalError"] * 50
    with pytest.raises(StorageError, match=r"^s3://bucket/prefix/key: cannot write: the server answers Internal"):
        store.write_bytes("key", b"value")
    assert len(server.requests) == QUICK.attempts


def test_a_silent_server_is_given_up_at_the_deadline(server: FaultyServer) -> None:
    store = with_limits(server, attempts=50, read_seconds=0.2, deadline_seconds=0.7)
    server.faults = ["silent"] * 50
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"prefix/key: cannot read: given up after \d s"):
        store.read_bytes("key")
    assert time.monotonic() - start < 5
    time.sleep(0.5)  # until the server has seen what was under way
    sent = len(server.requests)
    time.sleep(0.5)
    assert len(server.requests) == sent, "it goes on in the background"


@pytest.mark.parametrize("operation", ["read_bytes", "download"])
def test_an_answer_that_trickles_is_given_up_at_the_deadline(
    server: FaultyServer, tmp_path: Path, operation: str
) -> None:
    with_limits(server).write_bytes("key", b"x" * 100)
    store = with_limits(server, deadline_seconds=0.5)
    server.faults = ["trickle"] * 9
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"given up after \d s"):
        store.read_bytes("key") if operation == "read_bytes" else store.download("key", tmp_path / "file")
    assert time.monotonic() - start < 5
    assert not (tmp_path / "file").exists()


def test_bytes_that_move_push_the_deadline_back() -> None:
    deadline = Deadline(seconds=0.05, bytes_per_second=10)

    def work() -> str:
        for _ in range(4):
            time.sleep(0.03)
            current().moved(1)
        return "done"

    assert bounded(work, deadline) == "done"
    with pytest.raises(DeadlineExceededError):
        deadline.check()


def test_a_body_that_breaks_off_is_read_again(server: FaultyServer, store: S3Store, tmp_path: Path) -> None:
    store.write_bytes("key", b"x" * 100_000)
    server.faults = ["half", "half"]
    assert len(store.read_bytes("key")) == 100_000
    server.faults = ["half", "half"]
    store.download("key", tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == 100_000


def test_a_download_that_fails_leaves_nothing(server: FaultyServer, store: S3Store, tmp_path: Path) -> None:
    store.write_bytes("key", b"x" * 100_000)
    target = tmp_path / "file"
    target.write_bytes(b"before")
    server.faults = ["half"] * 50
    with pytest.raises(StorageError, match="prefix/key: cannot read: "):
        store.download("key", target)
    assert os.listdir(tmp_path) == ["file"]
    assert target.read_bytes() == b"before"


def test_a_conditional_write_knows_its_own_lost_answer(server: FaultyServer, store: S3Store) -> None:
    server.faults = ["lost answer"]
    store.write_bytes("key", b"mine", if_absent=True)
    assert [request[:3] for request in server.requests] == ["PUT", "PUT", "GET"]


def test_a_conditional_write_never_overwrites(server: FaultyServer, store: S3Store) -> None:
    store.write_bytes("key", b"theirs")
    for faults in ([], ["reset"]):
        server.faults = list(faults)
        with pytest.raises(StorageError, match="prefix/key: cannot write: it exists already"):
            store.write_bytes("key", b"mine", if_absent=True)
    assert store.read_bytes("key") == b"theirs"


def test_expired_credentials_are_read_anew(
    server: FaultyServer, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_bytes("key", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
    server.faults = ["error 400 ExpiredToken"]
    store.write_bytes("key", b"2")
    assert server.access_keys == ["first", "first", "second"]
    server.faults = ["error 400 ExpiredToken"] * 9
    with pytest.raises(StorageError, match="the credentials have expired: renew them"):
        store.write_bytes("key", b"3")


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("error 403 AccessDenied", "access denied: let these credentials use the bucket"),
        ("error 404 NoSuchBucket", "no such bucket: make it, or correct storage.url"),
        ("error 403 InvalidAccessKeyId", "the server does not know the access key: check AWS_ACCESS_KEY_ID"),
        ("error 403 SignatureDoesNotMatch", "the secret key does not fit .* check AWS_SECRET_ACCESS_KEY"),
        ("error 403 RequestTimeTooSkewed", "this machine's clock is wrong"),
        ("error 418 Teapot", "the server answers Teapot: no"),
    ],
)
def test_each_refusal_is_one_line_that_says_what_to_do(
    server: FaultyServer, store: S3Store, tmp_path: Path, fault: str, advice: str
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    lines = []
    for call in (partial(store.read_bytes, "key"), partial(store.upload, tmp_path / "file", "key")):
        server.faults = [fault]
        with pytest.raises(StorageError) as caught:
            call()
        lines.append(str(caught.value))
    assert re.match(f"s3://bucket/prefix/key: cannot read: {advice}", lines[0])
    assert re.match(f"s3://bucket/prefix/key: cannot write: {advice}", lines[1])
    assert not any("\n" in line or "very-secret" in line for line in lines)


def test_a_missing_object_is_told_from_a_missing_bucket(server: FaultyServer, store: S3Store, tmp_path: Path) -> None:
    server.objects["/bucket"] = b""
    assert not store.exists("key")
    with pytest.raises(NotFoundError, match=r"^s3://bucket/prefix/key: cannot read: no such object"):
        store.download("key", tmp_path / "file")
    del server.objects["/bucket"]
    with pytest.raises(StorageError, match="cannot look for: no such bucket"):
        store.exists("key")


def test_an_endpoint_that_is_not_there_is_named(server: FaultyServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(StorageError, match=rf"cannot list: {url} does not answer .*: check storage.endpoint"):
            S3Store("bucket", "", url, QUICK).list()


def test_a_server_that_redirects_to_itself_is_one_line(server: FaultyServer, store: S3Store) -> None:
    server.faults = ["redirect"] * 10_000
    for call in (lambda: store.read_bytes("a"), lambda: store.list(), lambda: store.write_bytes("a", b"x")):
        with pytest.raises(StorageError, match=r"another address: set storage\.endpoint_url") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_no_credentials_are_one_line(server: FaultyServer, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="cannot read: no credentials found: set AWS_ACCESS_KEY_ID"):
        store.read_bytes("key")


def test_a_store_that_was_used_travels_to_another_process(server: FaultyServer, store: S3Store) -> None:
    store.write_bytes("key", b"value")
    there = pickle.loads(pickle.dumps(store))
    assert there == store
    assert there.read_bytes("key") == b"value"


MODIFIED = datetime(2026, 1, 1, tzinfo=timezone.utc)


class FakeClient:
    """A bucket of many keys that lists them in pages and refuses to delete some."""

    def __init__(self, keys: list[str], refused: str = "") -> None:
        self.keys = keys
        self.refused = refused
        self.batches: list[int] = []

    def get_paginator(self, _: str) -> FakeClient:
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:  # noqa: N803 - boto3's names
        found = [key for key in self.keys if key.startswith(Prefix)]
        for start in range(0, len(found), 1000):
            page = [
                {"Key": key, "Size": len(key), "ETag": f'"{key}"', "LastModified": MODIFIED}
                for key in found[start : start + 1000]
            ]
            yield {"Contents": page}
        yield {}

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        names = {one["Key"] for one in Delete["Objects"]}
        self.batches.append(len(names))
        self.keys = [key for key in self.keys if key not in names - {self.refused}]
        return {"Errors": [{"Key": self.refused, "Code": "AccessDenied"}]} if self.refused in names else {}


def store_of(client: FakeClient) -> S3Store:
    store = S3Store("bucket", "team")
    store.__dict__["_made"] = (os.getpid(), client)
    return store


def test_a_listing_goes_through_all_pages_of_one_folder() -> None:
    keys = [f"team/run/{number:04}" for number in range(2500)] + [
        "team/run",
        "team/runner",
        "team/run/folder/",
    ]
    found = store_of(FakeClient(keys)).list("run")
    assert len(found) == 2500
    assert found[7] == Entry("run/0007", len("team/run/0007"))
    assert found[7].version == '"team/run/0007"'


def test_delete_works_in_batches_and_spares_its_neighbours() -> None:
    client = FakeClient([f"team/run/{number:04}" for number in range(2500)] + ["team/run", "team/run2"])
    store_of(client).delete("run")
    assert client.keys == ["team/run2"]
    assert client.batches == [1000, 1000, 501]


def test_a_refused_delete_is_an_error() -> None:
    client = FakeClient(["team/run/a", "team/run/b"], refused="team/run/b")
    with pytest.raises(StorageError, match=r"s3://bucket/team/run: cannot delete: access denied"):
        store_of(client).delete("run")
    with pytest.raises(StorageError, match="not a storage key"):
        store_of(client).delete("")
