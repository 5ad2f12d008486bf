"""What is counted of a process's operations on storage."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from heliostat.infra.errors import AlreadyExistsError, NotFoundError, StorageError
from heliostat.infra.metrics import of_storage
from heliostat.infra.metrics.export import Exporter, Labels
from heliostat.infra.metrics.metric import Metric
from heliostat.infra.storage.config import Kind
from heliostat.infra.storage.local import LocalStore
from heliostat.infra.storage.measured import MeasuredStore, observed
from heliostat.infra.storage.s3 import S3Store
from tests.unit.infra.storage.faulty_server import QUICK, FaultyServer

NEVER = 3600


class Counts:
    """Sums of counters, by metric and operation."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.sums: dict[tuple[str, str], float] = {}

    def record(self, metric: Metric, value: float, labels: Labels) -> None:
        assert labels["storage"] == self.kind
        key = metric.name, labels["operation"]
        self.sums[key] = self.sums.get(key, 0) + value

    def of(self, metric: Metric) -> dict[str, float]:
        """Those above zero, by operation."""
        return {operation: value for (name, operation), value in self.sums.items() if name == metric.name and value}


def counted(store: LocalStore | S3Store, *calls: str, folder: Path) -> Counts:
    """The counters after these calls, whose failures are let go."""
    kind: Kind = "local" if isinstance(store, LocalStore) else "s3"
    counts, measured, file = Counts(kind), MeasuredStore(store, kind), folder / "file"
    file.write_bytes(b"x" * 50)
    exporter = Exporter(counts.record, NEVER)
    operations: dict[str, Callable[[], object]] = {
        "write": lambda: measured.write_bytes("key", b"12345"),
        "write again": lambda: measured.write_bytes("key", b"1", if_absent=True),
        "read": lambda: measured.read_bytes("key"),
        "read none": lambda: measured.read_bytes("none"),
        "upload": lambda: measured.upload(file, "file"),
        "download": lambda: measured.download("file", folder / "copy"),
        "exists": lambda: measured.exists("key"),
        "list": measured.list,
        "delete": lambda: measured.delete("key"),
    }
    with observed(exporter, kind):
        for call in calls:
            with suppress(StorageError):
                operations[call]()
    exporter.close()
    return counts


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def test_each_operation_is_counted_with_its_bytes_and_seconds(local: LocalStore, tmp_path: Path) -> None:
    calls = ("write", "read", "read", "upload", "download", "exists", "list", "delete")
    counts = counted(local, *calls, folder=tmp_path)
    assert counts.of(of_storage.REQUESTS) == {"write": 2, "read": 3, "exists": 1, "list": 1, "delete": 1}
    assert counts.of(of_storage.BYTES) == {"write": 55, "read": 60}
    assert set(counts.of(of_storage.SECONDS)) == {"write", "read", "exists", "list", "delete"}
    assert counts.of(of_storage.ERRORS) == {}


def test_counters_begin_at_zero(local: LocalStore, tmp_path: Path) -> None:
    sums = counted(local, folder=tmp_path).sums
    assert len(sums) == 25
    assert set(sums.values()) == {0}


def test_what_is_missing_or_there_already_is_no_error(local: LocalStore, tmp_path: Path) -> None:
    counts = counted(local, "read none", "write", "write again", folder=tmp_path)
    assert counts.of(of_storage.REQUESTS) == {"read": 1, "write": 2}
    assert counts.of(of_storage.ERRORS) == {}


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    counts = counted(LocalStore(str(tmp_path / "taken")), "write", folder=tmp_path)
    assert counts.of(of_storage.ERRORS) == {"write": 1}


@pytest.mark.parametrize(
    ("faults", "call", "retries", "errors"),
    [
        (["error 503 SlowDown", "reset"], "write", {"write": 2}, {}),
        (["error 503 SlowDown"] * 3, "write", {"write": 2}, {"write": 1}),
        (["half"], "read", {"read": 1}, {}),
        (["error 503 SlowDown"], "upload", {"write": 1}, {}),
        (["error 403 AccessDenied"], "read", {}, {"read": 1}),
        ([], "read none", {}, {}),
        ([], "write again", {}, {}),
    ],
)
def test_retries_and_errors_of_a_bucket_are_counted(
    server: FaultyServer,
    tmp_path: Path,
    faults: list[str],
    call: str,
    retries: dict[str, float],
    errors: dict[str, float],
) -> None:
    store = S3Store("bucket", "prefix", server.url, QUICK)
    store.write_bytes("key", b"x" * 1000)
    server.faults = list(faults)
    counts = counted(store, call, folder=tmp_path)
    assert counts.of(of_storage.RETRIES) == retries
    assert counts.of(of_storage.ERRORS) == errors


def test_errors_are_those_of_the_store(local: LocalStore) -> None:
    store = MeasuredStore(local, "local")
    store.write_bytes("key", b"1")
    with pytest.raises(AlreadyExistsError):
        store.write_bytes("key", b"2", if_absent=True)
    with pytest.raises(NotFoundError):
        store.read_bytes("none")


def test_a_measured_store_travels_to_another_process(local: LocalStore) -> None:
    store = MeasuredStore(local, "local")
    store.write_bytes("key", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("key") == b"1"


def test_a_plain_command_loads_neither_ray_nor_prometheus() -> None:
    code = (
        "import sys; from heliostat.infra.storage.store import open_store; open_store('/tmp');"
        "assert not {'ray', 'prometheus_client', 'boto3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
