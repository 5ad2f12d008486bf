"""An evaluation whose report cannot be stored prints its metrics, and fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from heliostat.infra.errors import StorageError
from heliostat.pipeline import evaluate
from heliostat.view.terminal import View


def test_metrics_are_printed_before_a_report_that_cannot_be_stored_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> str:
        raise StorageError("/data: cannot write: Read-only file system")

    found: dict[str, Any] = {"metrics": {"accuracy": 0.75}, "confusion": None, "labels": []}
    monkeypatch.setattr("heliostat.train.evaluation.assess.assess", lambda *_: found)
    monkeypatch.setattr(evaluate, "report_on_model", refuse)
    model, spec = SimpleNamespace(name="m", version=1), SimpleNamespace(storage=None)
    with pytest.raises(StorageError, match="Read-only file system"):
        evaluate.run(cast("Any", spec), cast("Any", model), cast("Any", None), View())
    assert "0.75" in capsys.readouterr().out
