"""A new version becomes production by itself only if it is better on the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from heliostat.infra.errors import ConfigError
from heliostat.infra.registry import registry
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.waiting import Publication
from heliostat.pipeline.promotion import gate
from heliostat.spec import Spec, load_spec
from heliostat.train.data.prepared import Prepared
from heliostat.view.terminal import View

PREPARED = Prepared("f" * 16, "", Path(), ("no", "yes"), {"train": 16, "validation": 8, "test": 4})
MODE = {"max": "sentiment", "min": "language-model"}
"""A recipe whose metric should be high, and one whose should be low."""


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HELIOSTAT_STORAGE", str(tmp_path / "storage"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "storage"


def published(spec: Spec, run: str) -> ModelVersion:
    made = Publication(spec.name, f"{spec.storage.url}/models/{spec.name}/{run}", run * 32, {})
    return registry.publish(spec.storage, made, None)


def measured(monkeypatch: pytest.MonkeyPatch, values: dict[int, Any]) -> list[int]:
    """Versions measure as given; a version that raises raises. Returns those that were measured."""
    asked: list[int] = []

    def assess(model: ModelVersion, _: object, prepared: Prepared) -> dict[str, Any]:
        assert prepared is PREPARED
        asked.append(model.version)
        if isinstance(values[model.version], Exception):
            raise values[model.version]
        return {"metrics": {"accuracy": values[model.version], "loss": values[model.version]}}

    monkeypatch.setattr("heliostat.train.evaluation.assess.assess", assess)
    return asked


def gated(spec: Spec, model: ModelVersion) -> tuple[ModelVersion, str]:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    return gate(spec, model, PREPARED, View(console)), console.export_text()


@pytest.mark.parametrize(
    ("mode", "before", "after", "is_better"),
    [
        ("max", 0.8, 0.9, True), ("max", 0.9, 0.8, False), ("max", 0.9, 0.9, False), ("max", 0.9, float("nan"), False),
        ("min", 0.9, 0.8, True), ("min", 0.8, 0.9, False), ("min", 0.8, float("nan"), False),
    ],
)  # fmt: skip
def test_the_better_one_by_the_metric_of_the_task_is_production(
    mode: str, before: float, after: float, is_better: bool, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(MODE[mode], ["train.promote=better"])
    published(spec, "a")
    asked = measured(monkeypatch, {1: before, 2: after})
    model, said = gated(spec, published(spec, "b"))
    assert asked == [1, 2]
    assert registry.resolve(spec.storage, f"models:/{spec.name}@production").version == (2 if is_better else 1)
    assert model.aliases == (("production",) if is_better else ())
    assert ("version 2 of" in said) == is_better
    assert ("version 1 of" in said and "stays in production" in said) != is_better


def test_a_version_that_knows_other_labels_stays_in_production(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("sentiment", ["train.promote=better"])
    published(spec, "a")
    measured(monkeypatch, {1: ConfigError("data.source: its labels are no, yes; version 1 knows a, b"), 2: 0.9})
    model, said = gated(spec, published(spec, "b"))
    assert model.aliases == ()
    assert "version 1 of sentiment stays in production: data.source: its labels are no, yes" in said


@pytest.mark.parametrize("promote", ["first", "better"])
def test_the_first_version_is_production_unmeasured(
    promote: str, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec("sentiment", [f"train.promote={promote}"])
    asked = measured(monkeypatch, {})
    assert gated(spec, published(spec, "a"))[0].aliases == ("production",)
    assert asked == []


def test_others_are_left_to_the_user_by_default(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("sentiment")
    published(spec, "a")
    asked = measured(monkeypatch, {})
    assert gated(spec, published(spec, "b"))[0].aliases == ()
    assert asked == []


def test_a_version_that_is_not_registered_yet_is_not_compared(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_spec("sentiment", ["train.promote=better"])
    asked = measured(monkeypatch, {})
    made = Publication(spec.name, "s3://b/m", "a" * 32, {})
    assert gated(spec, registry.unregistered(made, None))[0].version == 0
    assert asked == []
    assert "not compared with production, since it is not registered yet" in capsys.readouterr().err


def test_without_a_test_split_there_is_nothing_to_compare_by() -> None:
    with pytest.raises(ConfigError, match=r"train.promote: better given, and data.split.test is 0"):
        load_spec("sentiment", ["train.promote=better", "data.split.test=0"])
