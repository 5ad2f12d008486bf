from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.cluster import folders
from heliostat.infra.errors import ResourceError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_home_is_private_even_where_it_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    monkeypatch.setenv("HELIOSTAT_HOME", str(tmp_path / "home"))
    assert mode(folders.home()) == 0o700


def test_rays_folder_lies_in_one_that_only_the_user_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = folders.ray_folder()
    assert folder.parent.parent == tmp_path
    assert mode(folder.parent) == 0o700


def test_a_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ResourceError, match=f"{tmp_path}: belongs to another user"):
        folders.private(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"file/below: cannot be used \(Not a directory\)"):
        folders.private(tmp_path / "file" / "below")


def test_free_ports_differ_and_can_be_taken() -> None:
    ports = folders.free_ports(20)
    assert len(set(ports)) == 20
    assert all(port in folders.PORTS for port in ports)
