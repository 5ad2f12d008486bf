"""Tracking and registry against MLflow's own server, as MLFLOW_TRACKING_URI names one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from heliostat.infra import tracking, waiting
from heliostat.infra.errors import UnreachableError
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracked_run import start_run
from heliostat.infra.waiting import Publication

SERVE = "import sys; from mlflow.server import app; app.run('127.0.0.1', int(sys.argv[1]))"


class Server(NamedTuple):
    """MLflow's server, which can be made silent by SIGSTOP: the system goes on accepting its connections."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
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
        yield Server(f"http://127.0.0.1:{port}", process)
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


def test_a_run_and_its_model_go_to_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine starts it slowly
    storage = StorageConfig(url=str(tmp_path / "storage"))
    with start_run(storage, "sentiment", "first", {"seed": 1}, {}) as run:
        run.log({"loss": 0.5}, step=7)
        run.text("fine", "report.txt")
    kept = tracking.client(storage).get_run(run.id)
    assert (kept.info.status, kept.data.metrics, kept.data.params) == (
        "FINISHED",
        {"loss": 0.5},
        {"seed": "1"},
    )
    assert run.url == f"{server.url}/#/experiments/{kept.info.experiment_id}/runs/{run.id}"
    assert [file.read_text() for file in (tmp_path / "artifacts").rglob("report.txt")] == ["fine"]

    for number, url in enumerate([f"{storage.url}/models/sentiment/a", "s3://bucket/models/sentiment/b"]):
        made = registry.register(storage, "sentiment", url, f"d{number}", run.id, {"f1": 0.5})
        registry.promote(storage, "sentiment", made.version)
    assert registry.resolve(storage, "models:/sentiment@production").url == "s3://bucket/models/sentiment/b"
    assert registry.rollback(storage, "sentiment").url == f"{storage.url}/models/sentiment/a"
    assert [one.version for one in registry.list_models(storage)] == [2, 1]
    assert capsys.readouterr().out == ""


def test_a_server_that_stops_answering_is_told_the_rest_when_it_is_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    storage = StorageConfig(url=str(tmp_path / "storage"))
    with start_run(storage, "sentiment", "first", {"seed": 1}, {}) as run:
        run.log({"loss": 0.5}, step=1)
        assert run.flush()
        server.process.send_signal(signal.SIGSTOP)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        run.log({"loss": 0.25}, step=2)
        run.text("fine", "report.txt")
        run.register_later(Publication("sentiment", f"{storage.url}/models/sentiment/a", "d1", {"f1": 0.5}))
    with pytest.raises(UnreachableError):
        registry.list_models(storage)
    server.process.send_signal(signal.SIGCONT)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    version = registry.resolve(storage, "models:/sentiment@production")
    assert (version.version, version.digest, version.run_id) == (1, "d1", run.id)
    kept = tracking.client(storage).get_run(run.id)
    assert (kept.info.status, kept.data.params) == ("FINISHED", {"seed": "1"})
    history = tracking.client(storage).get_metric_history(run.id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.25)]
    assert [file.read_text() for file in (tmp_path / "artifacts").rglob("report.txt")] == ["fine"]
    assert list(waiting.stored(storage)) == []
