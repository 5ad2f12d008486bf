"""What is printed, as people and scripts read it."""

from __future__ import annotations

import pytest

from heliostat.view.terminal import View


def test_what_goes_to_a_file_is_not_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    path = f"/models/{'x' * 300}/report.html"
    View().table("Files", ["name", "path"], [["report", path]])
    assert f" report   {path} " in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("COLUMNS", "60")
    View().table("Files", ["name", "path"], [["report", path]])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60
