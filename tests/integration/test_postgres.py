"""MLflow on a real PostgreSQL, by the commands of the component: tables, server, runs, versions, artifacts."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from heliostat.infra import tracking
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import start_run
from tests.ports import free_port
from tests.tools import need
from tests.unit.k8s.components.conftest import over
from tests.waiting import until

PASSWORD = secrets.token_urlsafe(24)
NOBODY = 65534
"""A user without rights: PostgreSQL refuses to run as root."""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database of a PostgreSQL on this machine."""
    pytest.importorskip("psycopg", reason="there is no psycopg, which the image has")
    port, as_nobody = free_port(), {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    with TemporaryDirectory(dir="/tmp", prefix="hs-") as folder:
        (Path(folder) / "password").write_text(PASSWORD)
        for place in (Path(folder), Path(folder) / "password"):
            if as_nobody:
                os.chown(place, NOBODY, NOBODY)
        options: dict[str, Any] = {**as_nobody, "cwd": folder, "env": {**os.environ, "LC_ALL": "C.UTF-8"}}
        words = ["-U", "heliostat", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
        made = subprocess.run(
            [need("initdb"), "-D", f"{folder}/data", *words], capture_output=True, text=True, check=False, **options
        )
        assert made.returncode == 0, made.stderr
        command = [need("postgres"), "-D", f"{folder}/data", "-h", "127.0.0.1", "-p", str(port), "-c", "fsync=off"]
        with open(f"{folder}/log", "wb") as log:
            server = subprocess.Popen([*command, "-c", "unix_socket_directories="], stdout=log, stderr=log, **options)
        try:
            uri = f"postgresql://heliostat:{PASSWORD}@127.0.0.1:{port}/postgres"
            until(lambda: connects(uri, server, Path(folder) / "log"), "PostgreSQL takes connections", 90)
            yield uri
        finally:
            server.terminate()
            server.wait(timeout=60)


def connects(uri: str, server: subprocess.Popen[bytes], log: Path) -> bool:
    import psycopg  # type: ignore[import-not-found,import-untyped,unused-ignore]

    assert server.poll() is None, log.read_text()
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    deployment = over("postgres", tmp_path_factory.mktemp("k8s")).only("Deployment", "heliostat-mlflow")
    return dict(deployment["spec"]["template"]["spec"])


def variables(container: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """The container's own variables, in Kubernetes' order; `given` are those that come from elsewhere."""
    found: dict[str, str] = {}
    for one in container["env"]:
        value = one.get("value", given.get(one["name"], ""))
        for name, known in found.items():
            value = value.replace(f"$({name})", known)
        found[one["name"]] = value
    return found


def upgrade(pod: dict[str, Any], uri: str) -> str:
    """Runs the container that comes before the server; what it says."""
    [container] = pod["initContainers"]
    _, *words = container["command"] + container["args"]
    own = variables(container, {"MLFLOW_BACKEND_STORE_URI": uri})
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(pod: dict[str, Any], database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's address, run by the command of the Deployment on another port."""
    upgrade(pod, database)
    [container] = pod["containers"]
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    words = [
        word.replace("--port=5000", f"--port={port}").replace("0.0.0.0", "127.0.0.1") for word in container["args"]
    ]
    assert f"--port={port}" in words
    own = variables(container, {"MLFLOW_BACKEND_STORE_URI": database, "HELIOSTAT_STORAGE": f"file://{folder}/bucket"})
    program, *first = container["command"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / program), *first, *words],
            env={**os.environ, **own}, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        until(lambda: is_up(port, process, folder / "log"), "MLflow answers its probe", 120)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert not [one for one in family if PASSWORD in " ".join(one.cmdline())], "the list of processes shows it"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_up(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_runs_versions_and_artifacts_are_kept_when_the_tables_are_upgraded_again(
    server: str, pod: dict[str, Any], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine starts it slowly
    storage = StorageConfig(url=str(tmp_path / "storage"))
    with start_run(storage, "sentiment", "first", {"seed": 1}, {}) as run:
        run.log({"loss": 0.5}, step=7)
        run.text("fine", "report.txt")
    made = registry.register(storage, "sentiment", "s3://bucket/models/sentiment/a", "d" * 64, run.id, {"f1": 0.5})
    registry.promote(storage, "sentiment", made.version)
    upgrade(pod, database)
    kept = tracking.client(storage).get_run(run.id)
    assert (kept.info.status, kept.data.metrics) == ("FINISHED", {"loss": 0.5})
    assert kept.info.artifact_uri.startswith("mlflow-artifacts:/"), "the server takes them, not the client's folder"
    assert tracking.client(storage).list_artifacts(run.id)[0].path == "report.txt"
    assert registry.resolve(storage, "models:/sentiment@production").digest == "d" * 64
