"""Tracking and registry against MLflow's own server, as MLFLOW_TRACKING_URI names one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from heliostat.infra import tracking
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig

SERVE = "import sys; from mlflow.server import app; app.run('127.0.0.1', int(sys.argv[1]))"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own application without the job runners that `mlflow server` starts for half a minute."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{tmp_path}/server.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(tmp_path / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)], env=environment, stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "server.log")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            with urlopen(f"{url}/health", timeout=5):
                return
        except (URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"MLflow does not come up:\n{log.read_text()[-4000:]}") from error
            time.sleep(0.1)


def test_a_run_and_its_model_go_to_the_server(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = StorageConfig(url=str(tmp_path / "storage"))
    (tmp_path / "report.txt").write_text("fine")
    with tracking.start_run(storage, "sentiment", "first", {"seed": 1}, {}) as run:
        run.log({"loss": 0.5}, step=7)
        run.artifact(tmp_path / "report.txt")
    kept = tracking.client(storage).get_run(run.id)
    assert (kept.info.status, kept.data.metrics, kept.data.params) == (
        "FINISHED",
        {"loss": 0.5},
        {"seed": "1"},
    )
    assert run.url == f"{server}/#/experiments/{kept.info.experiment_id}/runs/{run.id}"
    assert [file.read_text() for file in (tmp_path / "artifacts").rglob("report.txt")] == ["fine"]

    for number, url in enumerate([f"{storage.url}/models/sentiment/a", "s3://bucket/models/sentiment/b"]):
        made = registry.register(storage, "sentiment", url, f"d{number}", run.id, {"f1": 0.5})
        registry.promote(storage, "sentiment", made.version)
    assert registry.resolve(storage, "models:/sentiment@production").url == "s3://bucket/models/sentiment/b"
    assert registry.rollback(storage, "sentiment").url == f"{storage.url}/models/sentiment/a"
    assert [one.version for one in registry.list_models(storage)] == [2, 1]
    assert capsys.readouterr().out == ""
