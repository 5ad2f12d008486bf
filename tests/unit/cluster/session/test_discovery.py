from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.cluster.folders import ray_folder
from heliostat.cluster.scrape import DISCOVERY
from heliostat.cluster.session.discovery import forget_ended


@pytest.mark.parametrize(("pid", "ended"), [(999_999_999, True), (os.getpid(), False)], ids=["ended", "lives"])
def test_the_list_of_agents_goes_with_its_ray(
    pid: int, ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    session = ray_folder() / f"session_2026-01-01_{pid}"
    session.mkdir(parents=True)
    (session / DISCOVERY).write_text("[]")
    (ray_folder() / DISCOVERY).symlink_to(session / DISCOVERY)
    assert forget_ended() is ended
    assert (ray_folder() / DISCOVERY).is_symlink() is not ended


def test_without_a_list_there_is_nothing_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert forget_ended() is False
