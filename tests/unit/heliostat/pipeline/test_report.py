"""A run's report: what it is made of, where it goes, and that it never fails a run."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from heliostat.infra.errors import ConfigError, StorageError
from heliostat.infra.registry.registry import ModelVersion
from heliostat.pipeline import tune
from heliostat.pipeline.report import STEP_METRICS, event_metrics, merge_curves, report_on_model, report_on_run
from heliostat.results import Curves, TrainingResult
from heliostat.spec import Spec, load_spec
from heliostat.train.data.config import Split
from heliostat.train.data.prepared import Prepared
from heliostat.view.terminal import View

RUN = "20260101-000000-abcd"
STEP = {"kind": "step", "step": 3, "steps": 9, **dict.fromkeys(STEP_METRICS, 0.1), "loss": 0.5}


class FakeRun:
    """A run in an MLflow that may be away."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self.kept: list[str] = []
        self.before: Curves = {"train/loss": {1: 4.0, 2: 3.0}, "validation/f1": {2: 0.5}}

    def history(self, names: list[str]) -> Curves:
        if self.away:
            raise StorageError("the server does not answer")
        return {name: values for name, values in self.before.items() if name in names}

    def text(self, text: str, name: str) -> None:
        self.kept.append(text)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return load_spec("sentiment", [f"storage.url={tmp_path}/storage"])


def trained(**changes: Any) -> TrainingResult:
    model = ModelVersion("sentiment", 7, "/models/r", "d" * 64, "m", datetime.now(timezone.utc), ("production",), {})
    result = {
        "metrics": {"accuracy": 0.75}, "confusion": [[2, 1], [0, 1]], "reliability": [], "labels": ["no", "yes"],
        "worst": [{"text": "<i>a film</i>", "true label": "no", "predicted label": "yes", "probability": 0.5}],
        "size_bytes": 2_000_000, **changes,
    }  # fmt: skip
    return TrainingResult(RUN, model, result, "http://mlflow", {"train/loss": {1: 0.5, 2: 0.25}})


PREPARED = Prepared("f" * 16, "", Path(), ("no", "yes"), {"train": 1600, "validation": 8, "test": 4})


def write(spec: Spec, run: FakeRun, run_of: TrainingResult) -> str | None:
    return report_on_run(spec, PREPARED, cast("Any", run), run_of)


def test_events_become_metrics() -> None:
    found = event_metrics(STEP)
    assert found["train/loss"] == 0.5
    assert found.keys() == {f"train/{name}" for name in STEP_METRICS}
    assert event_metrics({"kind": "report", "step": 4, "metrics": {"loss": 1.0}}) == {"validation/loss": 1.0}
    assert event_metrics({"kind": "result", "metrics": {"f1": 0.5}}) == {"test/f1": 0.5}
    assert event_metrics({"kind": "error", "message": "lost"}) == {}


def test_a_run_that_was_gone_on_with_is_drawn_from_its_start(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {"train/loss": {2: 2.5, 3: 2.0}, "test/f1": {0: 0.5}}
    assert merge_curves(cast("Any", FakeRun()), seen, "f1") == {
        "train/loss": {1: 4.0, 2: 2.5, 3: 2.0}, "validation/f1": {2: 0.5}, "test/f1": {0: 0.5},
    }  # fmt: skip
    assert merge_curves(cast("Any", FakeRun(away=True)), seen, "f1") == seen
    assert "curves begin where this command does: the server does not answer" in capsys.readouterr().err


def test_a_report_says_what_share_of_the_tokens_was_unknown(spec: Spec) -> None:
    counts = {**PREPARED.counts, "tokens": 1000, "unknown_tokens": 25}
    place = report_on_run(spec, replace(PREPARED, counts=counts), cast("Any", FakeRun()), trained())
    assert place
    assert "2.50%" in Path(place).read_text()


def test_a_report_says_that_a_run_has_ended_early(spec: Spec) -> None:
    early = "after step 4 of 9: accuracy has not improved"
    said = [Path(write(spec, FakeRun(), trained(stopped_early=one)) or "").read_text() for one in (early, None)]
    assert early in said[0]
    assert "stopped early" not in said[1]


def test_a_report_says_what_a_run_was_trained_in(spec: Spec) -> None:
    page = Path(write(spec, FakeRun(), trained(precision="fp32")) or "").read_text()
    assert "<dt>trained in</dt><dd>fp32</dd>" in page


def test_a_search_without_validation_records_is_refused(spec: Spec) -> None:
    data = spec.data.model_copy(update={"split": Split(validation=0)})
    with pytest.raises(ConfigError, match=r"data\.split\.validation: 0 given; a search compares its trials by that sp"):
        tune.run(spec.model_copy(update={"data": data}), PREPARED, View(Console(quiet=True)))


def test_the_report_is_with_the_run_and_in_mlflow(spec: Spec) -> None:
    run = FakeRun()
    place = write(spec, run, trained())
    assert place == f"{spec.storage.url}/runs/sentiment/{RUN}/report.html"
    page = Path(place).read_text()
    assert run.kept == [page]
    said = (
        f"Version 7, published by run {RUN}", "7, production", "f" * 16, "1,600 train, 8 validation, 4 test",
        "d" * 64, "http://mlflow", "&lt;i&gt;a film&lt;/i&gt;", "global_batch_size: 32", spec.model.origin,
    )  # fmt: skip
    assert [one for one in said if one not in page] == []


def test_a_report_that_cannot_be_made_fails_nothing(spec: Spec, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(spec, FakeRun(), trained(metrics=None)) is None
    assert f"run {RUN} has no report" in capsys.readouterr().err


def test_a_model_that_is_measured_again_has_a_report_without_curves(spec: Spec) -> None:
    measured_again = trained()
    place = report_on_model(spec, PREPARED, measured_again.model, measured_again.result)
    assert place == f"{spec.storage.url}/evaluations/sentiment/7-{'f' * 16}/report.html"
    page = Path(place).read_text()
    assert f"Version 7 on the test split of {spec.data.source}" in page
    assert "Confusion matrix" in page
    assert "<h2>Training</h2>" not in page


def test_the_terminal_draws_around_steps_without_a_number_and_says_where_the_report_is() -> None:
    run_of = trained()
    run_of.curves = {"train/loss": {1: 4.0, 2: math.nan, 3: 2.0, 4: 1.0}}
    run_of.report = "s3://bucket/runs/sentiment/r/report.html"
    console = Console(width=100, record=True)
    View(console).trained(run_of)
    said = console.export_text()
    assert "training loss" in said
    assert "nan" not in said
    assert "Report, with the worst records: s3://bucket/runs/sentiment/r/report.html" in said
