from __future__ import annotations

import base64
import json
import logging
import os
import re
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


def jwt(**claims: float) -> str:
    """A token as a Kubernetes service account has it; nobody has signed it."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, r"there is none in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or .*/\.ray/auth_token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, r"there is none in RAY_AUTH_TOKEN_PATH \(/nowhere/token\)"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "the one in RAY_AUTH_TOKEN is not the cluster's"),
        (
            {"RAY_AUTH_TOKEN": "a.b.c", "RAY_AUTH_TOKEN_PATH": "/nowhere"},
            "the one in RAY_AUTH_TOKEN is not the cluster's",
        ),
        ({"RAY_AUTH_TOKEN": jwt(exp=86_400)}, "the one in RAY_AUTH_TOKEN expired at 1970-01-02 00:00:00 UTC"),
        ({"RAY_AUTH_TOKEN": jwt(exp=4e9)}, "the one in RAY_AUTH_TOKEN is not the cluster's"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "right"}, "RAY_AUTH_MODE is not token here, so none was sent"),
    ],
    ids=["none", "no file", "wrong", "wrong, first place", "expired", "not expired", "mode"],
)
def test_a_refused_token_is_explained_without_being_shown(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = tokens.refusal()
    assert re.fullmatch(rf"it refuses our token: {expected}.*", said)
    assert variables.get("RAY_AUTH_TOKEN", "no token") not in said


def test_the_file_in_the_home_is_the_last_place(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret\n")
    assert tokens.refusal() == f"it refuses our token: the one in {home}/.ray/auth_token is not the cluster's"
