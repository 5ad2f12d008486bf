"""What is printed, as people and scripts read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.train.data.prepared import Prepared
from heliostat.tune.state import SearchState
from heliostat.tune.trials import Objective, Score, Trial
from heliostat.view.search import searching
from heliostat.view.terminal import View


def test_what_goes_to_a_file_is_not_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    path = f"/models/{'x' * 300}/report.html"
    View().table("Files", ["name", "path"], [["report", path]])
    assert f" report   {path} " in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("COLUMNS", "60")
    View().table("Files", ["name", "path"], [["report", path]])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_labels_and_paths_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = ["[/close]", "[red]", ":cat:", "[link=x]"]
    view = View()
    view.say(f"labels: {', '.join(names)}")
    view.confusion([[1] * 4] * 4, names)
    view.report("/data/[/x]/report.html")
    with view.progress("[/prepare]") as advance:
        advance("[/read]", 1, 2)
    trial = Trial(0, {"schedule": "[/x]"}, 1.0, (Score(1.0, 1, {"loss": 1.0}),))
    with searching(view.console) as update:
        update(SearchState("s", (Objective("loss", "min"),), (trial,), wanted=1))
    said = capsys.readouterr().out
    assert all(said.count(name) >= 3 for name in names)
    assert "/data/[/x]/report.html" in said
    assert "schedule [/x]" in said


def test_a_run_that_ends_early_says_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    with View().training() as on_event:
        on_event({"kind": "early_stop", "step": 4, "message": "after step 4 of 9: accuracy has not improved"})
    assert "  stopped early after step 4 of 9: accuracy has not improved" in capsys.readouterr().out.splitlines()


def test_a_run_says_what_its_precision_is_where_that_is_no_matter_of_course(capsys: pytest.CaptureFixture[str]) -> None:
    with View().training() as on_event:
        on_event({"kind": "precision", "precision": "bf16", "message": ""})
        on_event({"kind": "precision", "precision": "fp32", "message": "train.precision: fp32, since"})
    assert capsys.readouterr().out.strip() == "train.precision: fp32, since"


def test_the_share_of_unknown_tokens_is_shown_beside_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    View().prepared(Prepared("f", "", Path(), (), {"tokens": 400, "unknown_tokens": 3}))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["unknown", "tokens", "3"] in lines
    assert ["share", "of", "unknown", "tokens", "0.75%"] in lines
