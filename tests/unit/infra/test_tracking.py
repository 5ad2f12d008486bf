from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from heliostat.infra import tracking
from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.tracking import Run, start_run, tracking_uri


def test_a_run_keeps_what_it_is_told(storage: StorageConfig, tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("fine")
    params = {"seed": 1, "train": {"learning_rate": 3e-4, "deepspeed": {"a": None}}}
    with start_run(storage, "sentiment", "first", params, {"task": "x"}) as run:
        for step in range(3):
            run.log({"loss": 1 / (step + 1), "train/rate": 0.1}, step=step)
        run.tag("version", 3)
        run.artifact(tmp_path / "report.txt")
    client = tracking.client(storage)
    kept = client.get_run(run.id)
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "first"
    assert kept.data.params == {"seed": "1", "train.learning_rate": "0.0003", "train.deepspeed.a": "None"}
    assert kept.data.tags["task"] == "x"
    assert kept.data.tags["version"] == "3"
    assert [(one.step, one.value) for one in client.get_metric_history(run.id, "loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, 1 / 3),
    ]
    assert (Path(storage.url) / "mlflow" / run.id / "artifacts/report.txt").read_text() == "fine"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_a_run_that_breaks_off_says_how(storage: StorageConfig, error: BaseException, status: str) -> None:
    started: list[Run] = []

    def train() -> None:
        with start_run(storage, "e", "n", {}, {}) as run:
            started.append(run)
            run.log({"loss": 1.0})
            raise error

    with pytest.raises(type(error)):
        train()
    kept = tracking.client(storage).get_run(started[0].id)
    assert kept.info.status == status
    assert kept.data.metrics == {"loss": 1.0}


def test_a_run_goes_on_where_it_was(storage: StorageConfig) -> None:
    with pytest.raises(ValueError, match="lost"), start_run(storage, "e", "n", {"a": 1}, {}) as run:
        raise ValueError("lost")
    client = tracking.client(storage)
    with start_run(storage, "e", "n", {"a": 2, "b": 3}, {}, run_id=run.id) as again:
        assert client.get_run(run.id).info.status == "RUNNING"
    kept = client.get_run(run.id)
    assert again.id == run.id
    assert (kept.info.status, kept.data.params) == ("FINISHED", {"a": "1", "b": "3"})


def test_a_history_is_that_of_the_whole_run(storage: StorageConfig) -> None:
    with start_run(storage, "e", "n", {}, {}) as run:
        for step, loss in enumerate((4.0, 3.0, 2.0), start=1):
            run.log({"loss": loss, "norm": math.inf}, step)
    with start_run(storage, "e", "n", {}, {}, run_id=run.id) as again:
        again.log({"loss": 2.5}, 3)
        again.log({"loss": math.nan}, 4)
        found = again.history(["loss", "norm", "other"])
    assert found.keys() == {"loss", "norm"}
    assert list(found["loss"].values()) == pytest.approx([4.0, 3.0, 2.5, math.nan], nan_ok=True)
    assert found["norm"] == {1: math.inf, 2: math.inf, 3: math.inf}


def test_a_trial_is_a_child_of_its_search(storage: StorageConfig) -> None:
    with (
        start_run(storage, "e", "search", {}, {}) as parent,
        start_run(storage, "e", "trial", {}, {}, parent_run_id=parent.id) as child,
    ):
        pass
    client = tracking.client(storage)
    assert client.get_run(child.id).data.tags["mlflow.parentRunId"] == parent.id
    assert client.get_run(child.id).info.experiment_id == client.get_run(parent.id).info.experiment_id


def test_more_params_and_metrics_than_one_batch_takes(storage: StorageConfig) -> None:
    params = {f"p{number}": number for number in range(250)}
    with start_run(storage, "e", "n", params, {}) as run:
        for step in range(300):
            run.log({f"m{number}": step for number in range(5)}, step)
    kept = tracking.client(storage).get_run(run.id)
    assert len(kept.data.params) == 250
    assert kept.data.metrics == {f"m{number}": 299 for number in range(5)}


def test_a_loss_that_is_not_a_number_is_kept(storage: StorageConfig) -> None:
    with start_run(storage, "e", "n", {}, {}) as run:
        run.log({"loss": math.nan})
    assert math.isnan(tracking.client(storage).get_run(run.id).data.metrics["loss"])


class AwayClient:
    """An MLflow whose server is away until `back` is set."""

    def __init__(self) -> None:
        self.back = False
        self.batches: list[int] = []

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        if not self.back:
            raise MlflowException("Max retries exceeded with url: /api")
        self.batches.append(len(metrics))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.log_batch(run_id, [])


def test_metrics_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    client = AwayClient()
    client.back = True
    run = Run(client, "id", "url")  # type: ignore[arg-type]
    for step in range(2500):
        run.log({"loss": 1.0}, step)
    run.flush()
    assert client.batches[-3:] == [1000, 1000, 500]


def test_training_outlives_a_tracking_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_FLUSH_SECONDS", 0.0)
    client = AwayClient()
    run = Run(client, "id", "url")  # type: ignore[arg-type]
    for step in range(3):
        run.log({"loss": 1.0}, step)
    run.close("FINISHED")
    said = capsys.readouterr().err
    assert "3 metrics of run id wait for MLflow: the server does not answer; check MLFLOW_TRACKING_URI" in said
    assert "run id is over (FINISHED), but MLflow was not told" in said
    client.back = True
    run.flush()
    assert client.batches == [3]


def test_a_server_that_is_away_at_the_start_is_one_line(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StorageError) as caught, start_run(storage, "e", "n", {}, {}):
        pytest.fail("started without a server")
    assert str(caught.value) == (
        "run 'n' in http://127.0.0.1:1: MLflow fails: the server does not answer; check MLFLOW_TRACKING_URI"
    )


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(StorageConfig(url="/data/x")) == "sqlite:////data/x/mlflow.db"
    assert tracking_uri(StorageConfig(url="s3://bucket/x")) == f"sqlite:///{tmp_path}/heliostat-data/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert tracking_uri(StorageConfig(url="/data/x")) == "https://mlflow.example.org"


def test_a_run_says_where_to_look(storage: StorageConfig) -> None:
    with start_run(storage, "e", "n", {}, {}) as run:
        pass
    uri = f"sqlite:///{storage.url}/mlflow.db"
    page = f"http://127.0.0.1:5000/#/experiments/1/runs/{run.id}"
    assert run.url == f"mlflow ui --backend-store-uri {uri}  then  {page}"


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


def test_a_file_that_is_no_database_is_one_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    refused = pytest.raises(StorageError, match=r"MLflow fails: file is not a database$")
    with refused, start_run(StorageConfig(url=str(tmp_path)), "tiny", "a", {}, {}):
        pass


def test_the_database_of_a_bucket_is_not_looked_for_where_mlflow_cannot_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "100%"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"^MLflow's database: url: 'heliostat-data' given; a place without % and"):
        tracking_uri(StorageConfig(url="s3://bucket/x"))
