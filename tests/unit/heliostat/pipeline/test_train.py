"""A run whose MLflow is away trains, publishes, and is registered later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from heliostat.cli import app
from heliostat.cluster.session.interrupts import Terminated, signals_as_interrupt
from heliostat.commands import stages
from heliostat.infra import tracking, waiting
from heliostat.infra.errors import ConfigError, ResourceError, UnreachableError
from heliostat.infra.registry import registry
from heliostat.infra.storage import lease
from heliostat.infra.storage.store import open_store
from heliostat.pipeline import train
from heliostat.pipeline.runs import driving, find_run, read_run, write_run
from heliostat.results import TrainingResult
from heliostat.spec import Spec, load_spec
from heliostat.train.data.prepared import Prepared
from heliostat.view.terminal import View
from tests.silent import silent_mlflow

RUN = "20260101-000000-abcd"
PREPARED = Prepared("f" * 16, "", Path(), ("no", "yes"), {"train": 16, "validation": 8, "test": 4})
RESULT: dict[str, Any] = {
    "kind": "result", "metrics": {"accuracy": 0.75}, "confusion": [[2, 1], [0, 1]], "labels": ["no", "yes"],
    "reliability": [], "worst": [], "size_bytes": 2_000_000, "digest": "d" * 64,
}  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_spec("sentiment", [])


@pytest.fixture
def silent(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's server, which accepts connections and never answers."""
    with silent_mlflow(monkeypatch) as url:
        yield url


def run(spec: Spec, monkeypatch: pytest.MonkeyPatch, search: str | None = None, **changes: Any) -> TrainingResult:
    """A run whose workers publish at once."""
    result = {**RESULT, **changes, "url": f"{spec.storage.url}/models/sentiment/{RUN}"}

    def launch(_: object, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        on_event({"kind": "precision", "precision": "fp32", "message": ""})
        on_event(result)
        return result

    monkeypatch.setattr("heliostat.train.launch.launch", launch)
    monkeypatch.setattr(train, "make_job", lambda *_: None)
    return train.run(spec, PREPARED, View(Console(quiet=True)), RUN, search)


def test_a_model_whose_registry_is_silent_is_registered_by_who_asks_next(
    silent: str, spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = run(spec, monkeypatch)
    assert (trained.model.version, trained.model.number) == (0, "not registered yet")
    assert "Version not registered yet" in Path(trained.report or "").read_text()
    assert capsys.readouterr().err.count("the next train, tune, evaluate, serve or models command sends it") == 1
    with pytest.raises(ConfigError, match=r"finished \(its version waited for MLflow: heliostat models list\)"):
        find_run(spec, RUN, resume=True)

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    version = registry.resolve(spec.storage, "models:/sentiment@production")
    assert (version.version, version.digest, version.metrics) == (1, "d" * 64, {"accuracy": 0.75})
    assert list(waiting.stored(spec.storage)) == []


def test_a_model_that_waited_twice_has_one_version(silent: str, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    run(spec, monkeypatch)
    write_run(spec, RUN, {"status": "running"})  # as if the driver had been killed before it wrote that
    run(spec, monkeypatch)
    write_run(spec, RUN, {"status": "running"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert [one.version for one in registry.list_models(spec.storage)] == [1]
    assert run(spec, monkeypatch).model.version == 1


def test_a_run_with_an_mlflow_that_answers_is_registered_at_once(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = run(spec, monkeypatch)
    assert (trained.model.version, trained.model.aliases) == (1, ("production",))
    assert read_run(spec, RUN)["version"] == 1
    assert list(waiting.stored(spec.storage)) == []


@pytest.mark.parametrize("early", ["after step 4 of 9: accuracy has not improved", None])
def test_mlflow_knows_of_a_run_that_has_ended_early(
    early: str | None, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec, monkeypatch, stopped_early=early)
    (found,) = tracking.client(spec.storage).search_runs(["1"])
    assert found.data.tags.get("heliostat.stopped_early") == early


def test_a_run_names_the_trial_whose_values_it_has_after_a_resume_too(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    run(spec, monkeypatch, search="lost/3")
    write_run(spec, RUN, {**read_run(spec, RUN), "status": "running"})  # as if its driver had been killed
    monkeypatch.setattr(train, "make_job", lambda *arguments: jobs.append(arguments[-1]))
    trained = train.run(spec, PREPARED, View(Console(quiet=True)), RUN)
    assert jobs == ["lost/3"]
    assert "trial lost/3" in Path(trained.report or "").read_text()
    (found,) = tracking.client(spec.storage).search_runs(["1"])
    assert found.data.tags["heliostat.search"] == "lost/3"


def test_mlflow_knows_what_a_run_is_trained_in(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    run(spec.model_copy(update={"train": spec.train.model_copy(update={"precision": "auto"})}), monkeypatch)
    (found,) = tracking.client(spec.storage).search_runs(["1"])
    assert found.data.params["precision"] == "fp32"
    assert found.data.params["zero_stage"] == str(spec.train.zero_stage)


@pytest.mark.parametrize("command", [["train", "sentiment"], ["tune", "sentiment", "tune.trials=1"]])
def test_nothing_is_begun_with_an_mlflow_that_is_away(
    command: list[str], silent: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "stages", lambda _: pytest.fail("started"))
    with pytest.raises(UnreachableError, match="the server does not answer; check MLFLOW_TRACKING_URI"):
        app(command, standalone_mode=False)


def test_a_run_that_was_begun_goes_on_with_an_mlflow_that_is_away(
    silent: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BegunError(Exception):
        pass

    def begin(_: object) -> None:
        raise BegunError

    file = Path(spec.storage.url) / f"runs/sentiment/{RUN}/run.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"run_id": RUN, "mlflow": "0" * 32, "status": "running"}))
    monkeypatch.setattr(stages, "stages", begin)
    with pytest.raises(BegunError):
        app(["train", "sentiment", "--run", RUN], standalone_mode=False)


def test_a_run_that_another_driver_runs_is_left_alone(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"run {RUN} of sentiment is in use by process"
    with driving(spec, RUN), pytest.raises(ResourceError, match=told):
        run(spec, monkeypatch)
    assert read_run(spec, RUN) == {}


def test_a_run_that_another_driver_has_finished_meanwhile_is_not_run_again(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(spec, RUN, {"status": "finished", "version": 4})
    with pytest.raises(ConfigError, match=rf"run {RUN} has finished \(version 4\)"):
        run(spec, monkeypatch)


def test_a_driver_whose_run_was_taken_over_stops(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)

    def drive() -> None:
        with signals_as_interrupt(), driving(spec, RUN):
            open_store(spec.storage).write_bytes(f"runs/sentiment/{RUN}/driver/000002.json", b"{}")
            time.sleep(60)

    with pytest.raises(Terminated):
        drive()
