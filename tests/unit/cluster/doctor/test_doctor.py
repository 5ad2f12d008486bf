from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.doctor import compiler, doctor, machine
from heliostat.infra.errors import AlreadyExistsError, ResourceError, StorageError
from heliostat.infra.storage.config import StorageConfig


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "heliostat"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def free(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    usage = shutil._ntuple_diskusage(100 * machine.GIB, 0, int(gib * machine.GIB))  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_each_check_has_advice_where_it_does_not_pass(tmp_path: Path) -> None:
    found = doctor.checks(StorageConfig(url=str(tmp_path / "data")))
    assert {"Python", "Ray", "accelerator", "storage", "cluster", "port 8000", "port 8265"} <= {
        one.name for one in found
    }
    assert [one for one in found if one.status != "pass" and not one.advice] == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("version", "status"), [((3, 9), "fail"), ((3, 10), "pass"), ((3, 14), "pass")])
def test_python(version: tuple[int, int], status: str) -> None:
    assert doctor.check_python(version).status == status


@pytest.mark.parametrize(("version", "status"), [(None, "fail"), ("2.52.1", "fail"), ("2.60.0", "pass")])
def test_ray(version: str | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: version)
    assert doctor.check_ray().status == status


def test_ray_without_haproxy_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "haproxy_binary", lambda: None)
    assert doctor.check_ray().status == "warn"


@pytest.mark.parametrize(
    ("capabilities", "found"),
    [
        ({"avx512_bf16": True}, "2 CPUs, bf16 in hardware (AVX-512 BF16)"),
        ({"avx2": True}, "2 CPUs, no bf16 in hardware: precision auto is fp32"),
    ],
)
def test_what_the_cpu_has_for_bf16(capabilities: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    check = machine.check_accelerator()
    assert check.status == "pass", "auto is right on both"
    assert check.found.endswith(found)


@pytest.mark.parametrize(("gib", "status"), [(0.5, "fail"), (5, "warn"), (50, "pass")])
def test_disk(gib: float, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch, gib)
    assert machine.check_disk("disk", tmp_path / "not" / "yet").status == status


def test_small_shared_memory_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = shutil._ntuple_diskusage(64 * 2**20, 0, 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: small)
    check = machine.check_shared_memory(tmp_path)
    assert (check.status, "--shm-size" in check.advice) == ("warn", True)


def test_a_port_in_use_warns_and_says_what_would_use_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        check = machine.check_port(port, "the endpoint", "serve.port=PORT moves it")
        assert (check.status, check.found) == ("warn", "in use; the endpoint would use it")
    assert machine.check_port(port, "the endpoint", "").status == "pass"


def test_storage_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor.check_storage(StorageConfig(url=str(tmp_path / "file" / "data"))).status == "fail"
    assert doctor.check_storage(StorageConfig(url=str(tmp_path / "data"))).status == "pass"


def test_a_bucket_is_written_read_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, bytes] = {}

    class Bucket:
        knows_conditions = True

        def write_bytes(self, key: str, data: bytes, if_absent: bool = False) -> None:
            if if_absent and self.knows_conditions and key in kept:
                raise AlreadyExistsError(key)
            kept[key] = data

        def read_bytes(self, key: str) -> bytes:
            return kept[key]

        def delete(self, key: str) -> None:
            del kept[key]

    monkeypatch.setattr(doctor, "open_store", lambda storage: Bucket())
    assert doctor.check_storage(StorageConfig(url="s3://bucket/prefix")).status == "pass"
    assert kept == {}
    monkeypatch.setattr(Bucket, "knows_conditions", False)
    assert "overwrites what must be new" in doctor.check_storage(StorageConfig(url="s3://bucket/prefix")).found
    assert kept == {}
    monkeypatch.setattr(Bucket, "read_bytes", lambda self, key: b"other")
    assert doctor.check_storage(StorageConfig(url="s3://bucket/prefix")).status == "fail"


def test_a_bucket_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(storage: StorageConfig) -> None:
        raise StorageError("s3://bucket: 403")

    monkeypatch.setattr(doctor, "open_store", refuse)
    check = doctor.check_storage(StorageConfig(url="s3://bucket"))
    assert (check.status, check.found) == ("fail", "s3://bucket: 403")


def test_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "none yet" in doctor.check_token().found
    (tmp_path / ".ray").mkdir()
    file = tmp_path / ".ray" / "auth_token"
    file.write_text("secret-token")
    file.chmod(0o644)
    assert (doctor.check_token().status, doctor.check_token().advice) == ("warn", f"chmod 600 {file}")
    file.chmod(0o600)
    assert doctor.check_token().status == "pass"
    assert "secret-token" not in doctor.check_token().found
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-token")
    assert doctor.check_token().found == "from RAY_AUTH_TOKEN"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert doctor.check_token().status == "warn"


def test_a_cluster_that_does_not_answer() -> None:
    assert doctor.check_address(ClusterConfig()).status == "pass"
    check = doctor.check_address(ClusterConfig(address="127.0.0.1:1"))
    assert check.status == "fail"
    assert "Ray at 127.0.0.1:1" in check.found


def test_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "missing_tools", lambda: ["ninja"])
    monkeypatch.setattr(compiler, "compiled_operators", list)
    assert doctor.check_operators(compile_now=False).status == "warn"
    assert doctor.check_operators(compile_now=True).status == "warn"
    monkeypatch.setattr(compiler, "compiled_operators", lambda: list(compiler.OPERATORS))
    assert doctor.check_operators(compile_now=False).status == "pass"


def test_operators_compiled_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compile_operators", lambda: 42.0)
    assert "compiled in 42 s" in doctor.check_operators(compile_now=True).found

    def fail() -> float:
        raise ResourceError("DeepSpeed's x: error: no space")

    monkeypatch.setattr(compiler, "compile_operators", fail)
    check = doctor.check_operators(compile_now=True)
    assert (check.status, check.found) == ("warn", "DeepSpeed's x: error: no space")
