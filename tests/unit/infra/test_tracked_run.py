"""Runs in MLflow: what they keep, and that MLflow never fails them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException

from heliostat.infra import tracked_run, tracking, waiting
from heliostat.infra.errors import StorageError, UnreachableError
from heliostat.infra.registry import registry
from heliostat.infra.storage.config import StorageConfig
from heliostat.infra.storage.store import open_store
from heliostat.infra.tracked_run import Connection, Run, start_run
from heliostat.infra.waiting import Publication, Waiting
from tests.silent import silent_mlflow, silent_server


def test_a_run_keeps_what_it_is_told(storage: StorageConfig) -> None:
    params = {"seed": 1, "train": {"learning_rate": 3e-4, "deepspeed": {"a": None}}}
    with start_run(storage, "sentiment", "first", params, {"task": "x"}) as run:
        for step in range(3):
            run.log({"loss": 1 / (step + 1), "train/rate": 0.1}, step=step)
        run.tag("version", 3)
        run.text("fine", "report.txt")
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
    assert (Path(storage.url) / f"mlflow/{run.id}/artifacts/report.txt").read_text() == "fine"


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


def test_a_run_that_another_process_goes_on_with_is_not_ended(storage: StorageConfig) -> None:
    with start_run(storage, "e", "n", {}, {}) as run:
        run.is_left = True
    assert tracking.client(storage).get_run(run.id).info.status == "RUNNING"


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
        start_run(storage, "e", "trial", {}, {}, parent=parent) as child,
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
        self.asked = 0
        self.ended: list[str] = []

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self.asked += 1
        if not self.back:
            raise MlflowException("Max retries exceeded with url: /api")
        self.batches.append(len(metrics))

    def set_terminated(self, run_id: str, status: str, ended_ms: int) -> None:
        self.ended.append(status)


def run_of(client: AwayClient, storage: StorageConfig) -> Run:
    return Run(Connection(cast("Any", client), storage), Waiting("e", "first", "id", "1"))


def test_metrics_are_sent_together(storage: StorageConfig) -> None:
    client = AwayClient()
    client.back = True
    run = run_of(client, storage)
    for step in range(2500):
        run.log({"loss": 1.0}, step)
    run.flush()
    assert client.batches[-3:] == [1000, 1000, 500]


def test_a_server_that_has_failed_is_left_alone_for_a_while_and_then_told_everything(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracked_run, "_FLUSH_SECONDS", 0.0)
    client = AwayClient()
    run = run_of(client, storage)
    for step in range(3):
        run.log({"loss": 1.0}, step)
    assert client.asked == 1
    assert "metrics of run first wait: run 'first' in" in capsys.readouterr().err
    monkeypatch.setattr(tracked_run, "_RETRY_SECONDS", 0.0)
    again = run_of(client, storage)
    again.log({"loss": 1.0}, 3)
    client.back = True
    again.log({"loss": 1.0}, 4)
    assert client.batches == [2]


@pytest.fixture
def silent(storage: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's server, which accepts connections and never answers."""
    with silent_mlflow(monkeypatch) as url:
        yield url


def test_what_a_silent_server_was_to_be_told_waits_in_storage_and_is_sent_by_who_asks_next(
    silent: str, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(storage, "e", "first", {"a": {"b": 1}}, {"task": "x"}) as run:
        for step in range(1500):
            run.log({"loss": math.nan, "f1": step / 2}, step)
        run.text("fine", "report.txt")
    said = [line for line in capsys.readouterr().err.splitlines() if "the rest waits" in line]
    assert len(said) == 1
    assert f"waits in {storage.url}/waiting, and the next train, tune, evaluate, serve or models command" in said[0]
    assert (run.id, run.url) == (None, "waits until MLflow answers")
    assert len(list(waiting.stored(storage))) == 1

    with pytest.raises(UnreachableError, match="the server does not answer"):
        registry.list_models(storage)
    assert len(list(waiting.stored(storage))) == 1

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert registry.list_models(storage) == []
    assert list(waiting.stored(storage)) == []
    client = tracking.client(storage)
    (kept,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert (kept.info.status, kept.info.run_name, kept.data.tags["task"]) == ("FINISHED", "first", "x")
    assert kept.data.params == {"a.b": "1"}
    assert [one.value for one in client.get_metric_history(kept.info.run_id, "f1")] == [n / 2 for n in range(1500)]
    assert math.isnan(kept.data.metrics["loss"])
    assert (Path(storage.url) / "mlflow" / kept.info.run_id / "artifacts/report.txt").read_text() == "fine"
    assert kept.info.start_time <= kept.info.end_time


def test_the_trials_of_a_search_wait_once_and_are_told_of_in_one_line(
    silent: str, storage: StorageConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(storage, "e", "search", {}, {}) as search:
        for number in range(3):
            with start_run(storage, "e", f"trial-{number}", {}, {}, search) as trial:
                trial.log({"f1": 0.5})
    said = capsys.readouterr().err
    assert said.count("the server does not answer") == 1
    assert said.count("the rest waits") == 1
    assert "4 runs" in said
    assert sorted(one.name for _, one in waiting.stored(storage)) == ["search", "trial-0", "trial-1", "trial-2"]


def test_a_run_that_mlflow_refuses_does_not_stop_a_model_from_being_registered(
    storage: StorageConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    publication = Publication("sentiment", f"{storage.url}/models/sentiment/a", "d1", {"f1": math.nan})
    gone = "0" * 32
    left = Waiting("e", "first", gone, "1", metrics=[("loss", 1.0, 1, 1)], publication=publication)
    waiting.keep(storage, left)
    assert [one.digest for one in registry.list_models(storage)] == ["d1"]
    assert "stays there: run 'first' in" in capsys.readouterr().err
    ((_, kept),) = waiting.stored(storage)
    assert (kept.publication, kept.metrics) == (None, [("loss", 1.0, 1, 1)])


def test_what_waits_and_cannot_be_read_is_named_and_stops_nothing(
    storage: StorageConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store(storage).write_bytes("waiting/1-a.json", b"{")
    assert registry.list_models(storage) == []
    assert "waiting/1-a.json: what waits for MLflow cannot be read" in capsys.readouterr().err


def test_a_silent_bucket_does_not_keep_the_registry_from_answering(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{storage.url}/mlflow.db")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.5)
    with silent_server() as url:
        assert registry.list_models(StorageConfig(url="s3://bucket/x", endpoint_url=url)) == []
    assert "what waits for MLflow cannot be looked for: s3://bucket/x/waiting" in capsys.readouterr().err


def test_a_run_outlives_a_storage_that_cannot_keep_what_waits(
    silent: str, storage: StorageConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(storage.url) / "waiting").write_text("a file where a folder is needed")
    with start_run(storage, "e", "first", {}, {}):
        pass
    assert "MLflow lacks a part of run first, which cannot be kept" in capsys.readouterr().err


def test_a_run_says_where_to_look(storage: StorageConfig) -> None:
    with start_run(storage, "e", "n", {}, {}) as run:
        pass
    uri = f"sqlite:///{storage.url}/mlflow.db"
    page = f"http://127.0.0.1:5000/#/experiments/1/runs/{run.id}"
    assert run.url == f"mlflow ui --backend-store-uri {uri}  then  {page}"


def test_a_file_that_is_no_database_is_one_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    refused = pytest.raises(StorageError, match=r"MLflow fails: file is not a database$")
    with refused, start_run(StorageConfig(url=str(tmp_path)), "tiny", "a", {}, {}):
        pass
