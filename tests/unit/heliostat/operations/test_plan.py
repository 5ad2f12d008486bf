"""What a plan says of time and price."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from heliostat.infra.accelerators import ACCELERATORS
from heliostat.infra.memory import GIB
from heliostat.operations import plan
from heliostat.operations.plan import show_costs, show_plan
from heliostat.spec import load_spec
from heliostat.train.planning.footprint import Footprint
from heliostat.train.telemetry.flops import Flops
from heliostat.view.terminal import View


@pytest.mark.parametrize(("overrides", "said"), [([], False), (["train.early_stopping.patience=2"], True)])
def test_time_and_price_of_a_run_that_may_end_early_are_the_most(
    overrides: list[str], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table({"length": [8, 8], "targets": [1, 1], "label": ["a", "b"]})
    prepared: Any = SimpleNamespace(split=lambda _: table, labels=("a", "b"))
    model = Footprint(100, 100, 100, 1.0, 1.0, 10, Flops(600.0, 0, 0))
    show_costs(load_spec("sentiment", overrides), View(), model, prepared, ACCELERATORS[:1], 0.4)
    shown = capsys.readouterr().out
    assert "Training on 2 records" in shown
    assert ("MFU 40%, at most (train.early_stopping)" in shown) == said


@pytest.mark.parametrize(("asked", "gradients"), [("auto", "2.00"), ("bf16", "2.00"), ("fp32", "4.00")])
def test_auto_is_planned_as_the_accelerators_of_the_table_compute(
    asked: str, gradients: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Footprint(GIB, GIB, 0, 1.0, 1.0, 0, Flops(1.0, 0, 0))
    monkeypatch.setattr(plan, "footprint_of", lambda spec, prepared: model)
    monkeypatch.setattr("heliostat.pipeline.prepare.prepared_data", lambda _: None)
    show_plan(load_spec("sentiment", [f"train.precision={asked}"]), View(), [], 0.4)
    shown = capsys.readouterr().out
    assert ("precision: bf16, as auto is on these accelerators" in shown) == (asked == "auto")
    unsharded = next(line.split() for line in shown.splitlines() if line.split()[:1] == ["0"])
    assert unsharded[2] == gradients
