"""What an evaluation says, in the form that travels to the driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from heliostat.train import tasks
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation.evaluate import evaluate, findings
from heliostat.train.parallel.distributed import World
from heliostat.train.tasks.base import Task

LOGITS = np.array([[2, 0], [0, 2], [0, 3]], dtype=np.float32)
ROWS = Rows(
    pa.table({"label": ["a", "a", "b"], "text": ["fine", "dull", "bad"], "length": pa.array([1, 1, 1], pa.int32())}),
    ("a", "b"),
)


class FakeTask:
    """A classifier that knows its answers, and can fail to show its errors."""

    def __init__(self, fails: bool = False) -> None:
        self._task: Any = tasks.get("text-classification")
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def collate(self, rows: Rows, indices: np.ndarray) -> dict[str, Any]:
        return {"indices": torch.from_numpy(indices)}

    def outputs(self, model: Any, batch: dict[str, Any]) -> np.ndarray:
        return LOGITS[batch["indices"].numpy()]

    def worst(self, *arguments: Any) -> Any:
        if self._fails:
            raise KeyError("text")
        return self._task.worst(*arguments)


def found(task: FakeTask) -> dict[str, Any]:
    typed = cast("Task", task)
    evaluation = evaluate(typed, torch.nn.Linear(1, 1), ROWS, World(0, 1, "cpu"))
    return findings(typed, evaluation, ROWS, Path())


def test_a_report_gets_what_it_needs_as_plain_values() -> None:
    told = found(FakeTask())
    assert json.loads(json.dumps(told)) == told
    assert told["confusion"] == [[1, 1], [0, 1]]
    assert told["labels"] == ["a", "b"]
    assert sum(one["count"] for one in told["reliability"]) == 3
    assert told["worst"] == [
        {
            "text": "dull",
            "true label": "a",
            "predicted label": "b",
            "probability": pytest.approx(1 / (1 + np.exp(-2))),
        }
    ]
    assert told["metrics"]["accuracy"] == pytest.approx(2 / 3)


def test_errors_that_cannot_be_shown_cost_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(FakeTask(fails=True))["worst"] is None
    assert "the worst records of the test split are not known" in capsys.readouterr().err


def test_a_split_without_records_has_no_metrics_and_no_worst_record() -> None:
    task, none = cast("Task", FakeTask()), Rows(ROWS.table.slice(0, 0), ROWS.labels)
    evaluation = evaluate(task, torch.nn.Linear(1, 1), none, World(0, 1, "cpu"))
    told = findings(task, evaluation, none, Path())
    assert (told["metrics"], told["worst"], told["confusion"], told["reliability"]) == ({}, [], None, [])
