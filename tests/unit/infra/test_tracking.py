from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from heliostat.infra import tracking
from heliostat.infra.errors import ConfigError, UnreachableError
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracking import tracking_uri
from tests.silent import silent_server


def test_a_silent_server_is_one_line_within_seconds(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(UnreachableError) as caught:
            registry.check(storage)
    assert str(caught.value) == f"{url}: MLflow fails: the server does not answer; check MLFLOW_TRACKING_URI"
    timeout, retries = (os.environ[f"MLFLOW_HTTP_REQUEST_{name}"] for name in ("TIMEOUT", "MAX_RETRIES"))
    assert int(timeout) * (1 + int(retries)) <= 8


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(StorageConfig(url="/data/x")) == "sqlite:////data/x/mlflow.db"
    assert tracking_uri(StorageConfig(url="s3://bucket/x")) == f"sqlite:///{tmp_path}/heliostat-data/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert tracking_uri(StorageConfig(url="/data/x")) == "https://mlflow.example.org"


def test_the_slower_of_two_processes_takes_the_others_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking import sqlalchemy_store

    file = tmp_path / "new" / "mlflow.db"

    class SlowStore:
        """Makes its database while another process puts its own in place."""

        def __init__(self, uri: str, artifacts: str) -> None:
            Path(uri.removeprefix("sqlite:///")).write_text("ours")
            assert not file.exists(), "the tables are made in place, where others see them half made"
            file.write_text("theirs")
            self.engine = self

        def dispose(self) -> None:
            pass

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", SlowStore)
    tracking._create_database(file)
    assert file.read_text() == "theirs"
    assert os.listdir(file.parent) == ["mlflow.db"]


def test_threads_that_open_a_new_database_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made: list[Path] = []
    both = threading.Barrier(2)

    def slowly(file: Path) -> None:
        made.append(file)
        time.sleep(0.2)

    def opened(_: int) -> MlflowClient:
        both.wait(timeout=30)
        return tracking.client(StorageConfig(url=str(tmp_path)))

    monkeypatch.setattr(tracking, "_create_database", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(opened, range(2))
    assert made == [tmp_path / "mlflow.db"]
    assert one is other


def test_a_new_database_is_made_in_silence(tmp_path: Path) -> None:
    code = (
        "from heliostat.infra.storage.store import StorageConfig; from heliostat.infra import tracking\n"
        f"tracking.client(StorageConfig(url={str(tmp_path / 'new')!r})).search_experiments()"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path / "new") == ["mlflow.db"]
    assert MlflowClient(f"sqlite:///{tmp_path}/new/mlflow.db").get_experiment("0").name == "Default"


def test_the_database_of_a_bucket_is_not_looked_for_where_mlflow_cannot_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "100%"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"^MLflow's database: url: 'heliostat-data' given; a place without % and"):
        tracking_uri(StorageConfig(url="s3://bucket/x"))
