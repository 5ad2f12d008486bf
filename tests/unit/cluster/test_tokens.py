from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from heliostat.cluster import tokens

ON = {"RAY_AUTH_MODE": "token"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and no token anywhere else."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_missing_token_is_made_for_this_user_alone(
    home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="heliostat")
    assert tokens.token_environment(create=True) == ON
    file = home / ".ray" / "auth_token"
    assert len(file.read_text()) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["auth_token"]
    assert file.read_text() not in "".join(capfd.readouterr())


def test_a_token_that_is_there_stays(home: Path) -> None:
    (home / ".ray").mkdir()
    file = home / ".ray" / "auth_token"
    file.write_text("mine")
    file.chmod(0o644)
    assert tokens.token_environment(create=True) == ON
    assert file.read_text() == "mine"
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_that_write_at_once_end_with_one_token(home: Path) -> None:
    tokens._write_token(tokens.token_file())
    first = tokens.token_file().read_text()
    tokens._write_token(tokens.token_file())
    assert tokens.token_file().read_text() == first


def test_nothing_is_made_to_join_a_ray_elsewhere(home: Path) -> None:
    assert tokens.token_environment(create=False) == {}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_the_users_own_token_is_used(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "given")
    assert tokens.token_environment(create=True) == tokens.token_environment(create=False) == ON
    assert list(home.iterdir()) == []


def test_the_user_may_switch_tokens_off_and_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert tokens.token_environment(create=True) == {}
    assert "RAY_AUTH_MODE is disabled" in capsys.readouterr().err


def test_a_home_that_cannot_be_written_leaves_the_token_in_the_environment(home: Path) -> None:
    (home / ".ray").touch()  # a file, where the folder would go
    environment = tokens.token_environment(create=True)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"] or "") == 64
    assert "RAY_AUTH_TOKEN" not in os.environ
